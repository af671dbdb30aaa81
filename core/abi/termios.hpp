// Terminal structures and constants of the Linux x86-64 ABI (asm-generic/termbits.h, ioctls.h).
// Anyone in the kernel may include this header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cowbird::abi {

inline constexpr std::size_t kNCCS = 19;

// struct termios of TCGETS/TCSETS (the kernel's, not libc's).
struct Termios {
  std::uint32_t iflag, oflag, cflag, lflag;
  std::uint8_t line;
  std::uint8_t cc[kNCCS];
};
static_assert(sizeof(Termios) == 36 && offsetof(Termios, cc) == 17);

// struct termios2 of TCGETS2/TCSETS2.
struct Termios2 {
  std::uint32_t iflag, oflag, cflag, lflag;
  std::uint8_t line;
  std::uint8_t cc[kNCCS];
  std::uint32_t ispeed, ospeed;
};
static_assert(sizeof(Termios2) == 44 && offsetof(Termios2, ispeed) == 36);

// struct termio of TCGETA/TCSETA (System V).
struct Termio {
  std::uint16_t iflag, oflag, cflag, lflag;
  std::uint8_t line;
  std::uint8_t cc[8];
};
static_assert(sizeof(Termio) == 18);

struct Winsize {
  std::uint16_t rows, columns, width_px, height_px;
};
static_assert(sizeof(Winsize) == 8);

// Indexes of cc.
enum : std::size_t {
  kVINTR,
  kVQUIT,
  kVERASE,
  kVKILL,
  kVEOF,
  kVTIME,
  kVMIN,
  kVSWTC,
  kVSTART,
  kVSTOP,
  kVSUSP,
  kVEOL,
  kVREPRINT,
  kVDISCARD,
  kVWERASE,
  kVLNEXT,
  kVEOL2,
};

// iflag
inline constexpr std::uint32_t kIGNBRK = 1, kBRKINT = 2, kIGNPAR = 4, kPARMRK = 010, kINPCK = 020,
                               kISTRIP = 040, kINLCR = 0100, kIGNCR = 0200, kICRNL = 0400,
                               kIUCLC = 01000, kIXON = 02000, kIXANY = 04000, kIXOFF = 010000,
                               kIMAXBEL = 020000, kIUTF8 = 040000;
// oflag
inline constexpr std::uint32_t kOPOST = 1, kOLCUC = 2, kONLCR = 4, kOCRNL = 010, kONOCR = 020,
                               kONLRET = 040, kTABDLY = 014000, kXTABS = 014000;
// cflag
inline constexpr std::uint32_t kCBAUD = 0010017, kB0 = 0, kB38400 = 017, kCSIZE = 060, kCS8 = 060,
                               kCREAD = 0200, kHUPCL = 02000, kCLOCAL = 04000, kBOTHER = 010000;
// lflag
inline constexpr std::uint32_t kISIG = 1, kICANON = 2, kECHO = 010, kECHOE = 020, kECHOK = 040,
                               kECHONL = 0100, kNOFLSH = 0200, kTOSTOP = 0400, kECHOCTL = 01000,
                               kECHOPRT = 02000, kECHOKE = 04000, kFLUSHO = 010000,
                               kPENDIN = 040000, kIEXTEN = 0100000, kEXTPROC = 0200000;

inline constexpr std::uint8_t kVDisable = 0;  // _POSIX_VDISABLE

// ioctls
inline constexpr std::uint32_t kTCGETS = 0x5401, kTCSETS = 0x5402, kTCSETSW = 0x5403,
                               kTCSETSF = 0x5404, kTCGETA = 0x5405, kTCSETA = 0x5406,
                               kTCSETAW = 0x5407, kTCSETAF = 0x5408, kTCSBRK = 0x5409,
                               kTCXONC = 0x540A, kTCFLSH = 0x540B, kTIOCEXCL = 0x540C,
                               kTIOCNXCL = 0x540D, kTIOCSCTTY = 0x540E, kTIOCGPGRP = 0x540F,
                               kTIOCSPGRP = 0x5410, kTIOCOUTQ = 0x5411, kTIOCSTI = 0x5412,
                               kTIOCGWINSZ = 0x5413, kTIOCSWINSZ = 0x5414, kTIOCMGET = 0x5415,
                               kTIOCINQ = 0x541B, kTIOCCONS = 0x541D, kTIOCNOTTY = 0x5422,
                               kTIOCSETD = 0x5423, kTIOCGETD = 0x5424, kTCSBRKP = 0x5425,
                               kTIOCSBRK = 0x5427, kTIOCCBRK = 0x5428, kTIOCGSID = 0x5429,
                               kTCGETS2 = 0x802C542A, kTCSETS2 = 0x402C542B, kTCSETSW2 = 0x402C542C,
                               kTCSETSF2 = 0x402C542D, kTIOCGPTN = 0x80045430,
                               kTIOCSPTLCK = 0x40045431, kTIOCGDEV = 0x80045432,
                               kTIOCVHANGUP = 0x5437, kTIOCGPTLCK = 0x80045439,
                               kTIOCGEXCL = 0x80045440, kTIOCGPTPEER = 0x5441;
// TCFLSH, TCXONC arguments
inline constexpr std::uint64_t kTCIFLUSH = 0, kTCOFLUSH = 1, kTCIOFLUSH = 2;
inline constexpr std::uint64_t kTCOOFF = 0, kTCOON = 1, kTCIOFF = 2, kTCION = 3;

}  // namespace cowbird::abi
