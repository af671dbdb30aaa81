// All code of the stub process; see engine/stub_protocol.hpp for who M and G are and what they promise.
// M's code uses no stack and no memory that is writable in the stub, because guest threads share it.
// G's code may: whatever guest code does to it, it does to itself.
#include "engine/stub_protocol.hpp"

#define SYS_write 1
#define SYS_lseek 8
#define SYS_mmap 9
#define SYS_munmap 11
#define SYS_rt_sigaction 13
#define SYS_rt_sigprocmask 14
#define SYS_rt_sigreturn 15
#define SYS_clone 56
#define SYS_prctl 157
#define SYS_arch_prctl 158
#define SYS_futex 202
#define SYS_exit_group 231
#define SYS_seccomp 317

#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002
#define FILTER_FLAGS 4  // SECCOMP_FILTER_FLAG_SPEC_ALLOW

// Ends the stub with this code when the last call failed.
.macro check step
    cmpq    $-4095, %rax
    movl    $\step, %edi
    jae     stub_fail
.endm

.text
.globl _start
_start:
    // Every signal stays blocked in M; guest threads unblock what is theirs.
    movl    $SYS_rt_sigprocmask, %eax
    movl    $2, %edi
    leaq    stub_all_signals(%rip), %rsi
    xorl    %edx, %edx
    movl    $8, %r10d
    syscall
    check   10
    movl    $SYS_prctl, %eax
    movl    $38, %edi               // PR_SET_NO_NEW_PRIVS
    movl    $1, %esi
    xorl    %edx, %edx
    xorl    %r10d, %r10d
    xorl    %r8d, %r8d
    syscall
    check   11
    movl    $SYS_prctl, %eax
    movl    $15, %edi               // PR_SET_NAME
    leaq    stub_name(%rip), %rsi
    syscall
    // Nothing of what execve set up stays: stack, vdso, vvar.
    movl    $SYS_munmap, %eax
    xorl    %edi, %edi
    movabsq $STUB_TEXT, %rsi
    syscall
    check   12
    movl    $SYS_munmap, %eax
    movabsq $(STUB_TEXT + STUB_TEXT_BYTES), %rdi
    movabsq $(STUB_HOST_END - STUB_TEXT - STUB_TEXT_BYTES), %rsi
    syscall
    check   13
    xorl    %esp, %esp
    movl    $SYS_mmap, %eax
    movabsq $STUB_ORDERS, %rdi
    movl    $STUB_ORDERS_BYTES, %esi
    movl    $1, %edx                // PROT_READ
    movl    $0x11, %r10d            // MAP_SHARED | MAP_FIXED
    movl    $STUB_FD_ORDERS, %r8d
    xorl    %r9d, %r9d
    syscall
    check   14
    movl    $SYS_mmap, %eax
    movabsq $STUB_CONTROL, %rdi
    movl    $0x1000, %esi
    movl    $3, %edx                // PROT_READ | PROT_WRITE
    movl    $0x11, %r10d
    movl    $STUB_FD_CONTROL, %r8d
    xorl    %r9d, %r9d
    syscall
    check   15
    leaq    stub_signals(%rip), %rbx
.Lnext_signal:
    movl    (%rbx), %edi
    testl   %edi, %edi
    jz      .Lsignals_done
    movl    $SYS_rt_sigaction, %eax
    leaq    stub_sigaction(%rip), %rsi
    xorl    %edx, %edx
    movl    $8, %r10d
    syscall
    check   16
    addq    $4, %rbx
    jmp     .Lnext_signal
.Lsignals_done:
    movabsq $STUB_ORDERS, %r13
    movabsq $STUB_CONTROL, %r14
    testl   $STUB_FLAG_FILTERED, ORDERS_FLAGS(%r13)
    jnz     .Lfiltered
    movl    $SYS_seccomp, %eax
    movl    $1, %edi                // SECCOMP_SET_MODE_FILTER
    movl    $FILTER_FLAGS, %esi
    leaq    stub_wide_filter(%rip), %rdx
    syscall
    check   17
.Lfiltered:
    movl    ORDERS_START_TAIL(%r13), %r12d
    movq    ORDERS_START_POINT(%r13), %rbp
    xorl    %r15d, %r15d            // how often M had to drop all guest mappings
    jmp     mm_report

stub_fail:
    movl    $SYS_exit_group, %eax
    syscall
    ud2

// M's loop. r12: entries done, r13: order pages, r14: hint page, rbx: entry, rbp: its point.
mm_loop:
    cmpl    ORDERS_HEAD(%r13), %r12d
    je      mm_idle
mm_execute:
    movl    %r12d, %ebx
    andl    $ORDERS_RING_MASK, %ebx
    shlq    $6, %rbx
    leaq    ORDERS_RING(%r13,%rbx), %rbx
    movq    0(%rbx), %rax
    movq    8(%rbx), %rdi
    movq    16(%rbx), %rsi
    movq    24(%rbx), %rdx
    movq    32(%rbx), %r10
    movq    40(%rbx), %r8
    movq    48(%rbx), %r9
    movq    ORDER_POINT(%rbx), %rbp
    syscall
    cmpq    $SYS_clone, 0(%rbx)
    je      mm_cloned
    cmpq    $-4095, %rax
    jae     mm_failed
mm_next:
    incl    %r12d
    cmpl    ORDERS_HEAD(%r13), %r12d
    jne     mm_execute
mm_report:
    // The proof first: a file position that guest threads cannot change.
    movq    %r15, %rsi
    shlq    $STUB_FLUSH_SHIFT, %rsi
    orq     %rbp, %rsi
    btrq    $63, %rsi
    movl    $SYS_lseek, %eax
    movl    $STUB_FD_ORDERS, %edi
    xorl    %edx, %edx
    syscall
    mfence
    movl    %ebp, (%r14)
    movl    $SYS_futex, %eax
    movq    %r14, %rdi
    movl    $FUTEX_WAKE, %esi
    movl    $0x7fffffff, %edx
    syscall
    mfence
    cmpl    $0, ORDERS_WANT_EVENT(%r13)
    je      mm_loop
    movl    $SYS_write, %eax
    movl    $STUB_FD_EVENT, %edi
    leaq    ORDERS_ONE(%r13), %rsi
    movl    $8, %edx
    syscall
    jmp     mm_loop
mm_idle:
    movl    $SYS_futex, %eax
    leaq    ORDERS_HEAD(%r13), %rdi
    movl    $FUTEX_WAIT, %esi
    movl    %r12d, %edx
    xorl    %r10d, %r10d
    syscall
    jmp     mm_loop
mm_failed:
    // Guest mappings are a cache: when one cannot be changed, all go, and faults bring them back.
    movl    $SYS_munmap, %eax
    xorl    %edi, %edi
    movabsq $STUB_USER_MAX, %rsi
    syscall
    check   18
    incl    %r15d
    jmp     mm_next
mm_cloned:
    testq   %rax, %rax
    jz      guest_start
    // The thread id (or the error) goes to the kernel as the position of the other memfd.
    movq    %rax, %rsi
    testq   %rax, %rax
    jns     1f
    negq    %rsi
    addq    $STUB_AUX_ERROR, %rsi
1:  movl    $SYS_lseek, %eax
    movl    $STUB_FD_CONTROL, %edi
    xorl    %edx, %edx
    syscall
    jmp     mm_next

// A new G: r9 is its mailbox. All signals are blocked until its first rt_sigreturn.
guest_start:
    movq    %r9, %rbx
    leaq    stub_narrow_filter(%rip), %rdx
    leaq    stub_narrow_filter_bases(%rip), %rax
    testl   $STUB_FLAG_NO_FSGSBASE, ORDERS_FLAGS(%r13)
    cmovnzq %rax, %rdx
    movl    $SYS_seccomp, %eax
    movl    $1, %edi
    movl    $FILTER_FLAGS, %esi
    syscall
    check   19
    leaq    MAILBOX_INITIAL_UCONTEXT(%rbx), %r12
    xorl    %r13d, %r13d
    jmp     guest_park

// Entered by every signal, on the alternate stack in the mailbox, with all signals blocked.
// edi: signal, rdx: struct ucontext. rbx: mailbox, r12: ucontext, r13d: to_guest as last seen.
.globl stub_handler
stub_handler:
    pushfq
    andl    $~0x40000, (%rsp)       // AC
    popfq
    cld
    movq    %rdx, %r12
    movq    %rdx, %rbx
    andq    $~(MAILBOX_BYTES - 1), %rbx
    movl    %edi, MAILBOX_SIGNAL(%rbx)
    movq    %r12, MAILBOX_FRAME(%rbx)
    movabsq $STUB_ORDERS, %r8
    testl   $STUB_FLAG_NO_FSGSBASE, ORDERS_FLAGS(%r8)
    jnz     1f
    rdfsbase %rax
    movq    %rax, MAILBOX_FS(%rbx)
    rdgsbase %rax
    movq    %rax, MAILBOX_GS(%rbx)
1:  rdtscp
    movl    %ecx, MAILBOX_CPU(%rbx)
    shlq    $32, %rdx
    leaq    (%rax,%rdx), %r15       // when the wait began
    movl    MAILBOX_TO_GUEST(%rbx), %r13d
    movq    MAILBOX_SPIN_TICKS(%rbx), %r14
    movl    MAILBOX_TO_KERNEL(%rbx), %eax
    incl    %eax
    xchgl   %eax, MAILBOX_TO_KERNEL(%rbx)
    cmpl    $0, MAILBOX_KERNEL_PARKED(%rbx)
    je      1f
    movl    $SYS_futex, %eax
    leaq    MAILBOX_TO_KERNEL(%rbx), %rdi
    movl    $FUTEX_WAKE, %esi
    movl    $1, %edx
    syscall
1:  testq   %r14, %r14
    jz      guest_park
guest_spin:
    cmpl    %r13d, MAILBOX_TO_GUEST(%rbx)
    jne     guest_resumed
    pause
    cmpl    $0, MAILBOX_PARK_REQUEST(%rbx)
    jne     guest_park
    rdtsc
    shlq    $32, %rdx
    addq    %rdx, %rax
    subq    %r15, %rax
    cmpq    %r14, %rax
    jb      guest_spin
guest_park:
    movl    $1, %eax
    xchgl   %eax, MAILBOX_GUEST_PARKED(%rbx)
1:  movl    $SYS_futex, %eax
    leaq    MAILBOX_TO_GUEST(%rbx), %rdi
    movl    $FUTEX_WAIT, %esi
    movl    %r13d, %edx
    xorl    %r10d, %r10d
    syscall
    cmpl    %r13d, MAILBOX_TO_GUEST(%rbx)
    je      1b
    movl    $0, MAILBOX_GUEST_PARKED(%rbx)
guest_resumed:
    // Orders that this resume depends on: hand over to M until its hint says that they are done.
    movabsq $STUB_CONTROL, %r14
1:  movl    (%r14), %r15d
    movl    %r15d, %eax
    subl    MAILBOX_NEED_POINT(%rbx), %eax
    jns     2f
    movl    $SYS_futex, %eax
    movabsq $(STUB_ORDERS + ORDERS_HEAD), %rdi
    movl    $FUTEX_WAKE, %esi
    movl    $1, %edx
    syscall
    movl    $SYS_futex, %eax
    movq    %r14, %rdi
    movl    $FUTEX_WAIT, %esi
    movl    %r15d, %edx
    xorl    %r10d, %r10d
    syscall
    jmp     1b
2:  testl   $RESUME_SET_BASES, MAILBOX_RESUME_FLAGS(%rbx)
    jz      4f
    movabsq $STUB_ORDERS, %r8
    testl   $STUB_FLAG_NO_FSGSBASE, ORDERS_FLAGS(%r8)
    jnz     3f
    movq    MAILBOX_NEW_FS(%rbx), %rax
    wrfsbase %rax
    movq    MAILBOX_NEW_GS(%rbx), %rax
    wrgsbase %rax
    jmp     4f
3:  movl    $SYS_arch_prctl, %eax
    movl    $ARCH_SET_FS, %edi
    movq    MAILBOX_NEW_FS(%rbx), %rsi
    syscall
    movl    $SYS_arch_prctl, %eax
    movl    $ARCH_SET_GS, %edi
    movq    MAILBOX_NEW_GS(%rbx), %rsi
    syscall
4:  movq    %r12, %rsp
    movl    $SYS_rt_sigreturn, %eax
    syscall
    ud2

.globl stub_restorer
stub_restorer:
    movl    $SYS_rt_sigreturn, %eax
    syscall
    ud2

.section .note.GNU-stack,"",@progbits
