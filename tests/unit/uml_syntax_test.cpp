// UML's command line as a machine file, and back.
#include "machine/uml_syntax.hpp"

#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "machine/apply_set.hpp"
#include "machine/machine_file.hpp"
#include "machine/toml_text.hpp"
#include "machine/uml_rules.hpp"
#include "machine/uml_writer.hpp"
#include "support/fake_catalog.hpp"

using namespace cowbird;
using Catch::Matchers::Contains;

namespace {

class FakeHost final : public UmlHost {
 public:
  FileKind kind_of(const std::string &path) const override {
    if (path.ends_with("/directory")) return FileKind::Directory;
    if (path.ends_with(".cow")) return FileKind::CowFile;
    return FileKind::Absent;
  }
};

test::FakeCatalog &catalog() {
  static test::FakeCatalog instance;
  return instance;
}

UmlMachine read(const std::string &line) {
  std::vector<ConfigError> errors;
  const auto words = split_uml_text(line, "", errors);
  auto machine = read_uml(words, catalog(), FakeHost());
  machine.errors.insert(machine.errors.begin(), errors.begin(), errors.end());
  return machine;
}

toml::table table_of(const UmlMachine &machine) {
  std::vector<std::string> origins;
  for (const auto &setting : machine.settings) origins.push_back(setting.origin);
  Problems problems("the line", origins);
  toml::table root;
  apply_set_options(root, machine.settings, problems);
  for (const auto &problem : problems.take()) FAIL(problem.text());
  return root;
}

// The machine file for a line.
std::string toml_for(const std::string &line) {
  const auto machine = read(line);
  INFO(line);
  for (const auto &error : machine.errors) FAIL(error.text());
  return machine_toml(table_of(machine));
}

std::string errors_of(const std::string &line) {
  std::string text;
  for (const auto &error : read(line).errors) text += error.text() + "\n";
  INFO(line);
  REQUIRE(text != "");
  return text;
}

std::string words_for(const std::string &text) {
  const auto line = write_uml(text, "m.toml", "/base", catalog(), FakeHost());
  for (const auto &error : line.errors) FAIL(error.text());
  std::string out;
  for (const auto &word : line.words) out += (out.empty() ? "" : " ") + quote_uml_word(word);
  return out;
}

std::string write_errors(const std::string &text) {
  std::string out;
  const auto line = write_uml(text, "m.toml", "/base", catalog(), FakeHost());
  for (const auto &error : line.errors) out += error.text() + "\n";
  return out;
}

}  // namespace

TEST_CASE("words are split as a shell does it") {
  std::vector<ConfigError> errors;
  const auto words = split_uml_text(
      "linux mem=64M \\\n  ubd0='my disk.img' # a comment\n con=\"null\" a\\ b it''s x#y\n",
      "f.uml", errors);
  REQUIRE(words.size() == 7);
  CHECK(words[1].where == "f.uml:1:7");
  CHECK(words[2].text == "ubd0=my disk.img");
  CHECK(words[2].where == "f.uml:2:3");
  CHECK(words[3].text == "con=null");
  CHECK(words[4].text == "a b");
  CHECK(words[5].text == "its");
  CHECK(words[6].text == "x#y");
  CHECK(errors.empty());
  split_uml_text("a 'b c", "f.uml", errors);
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].text() == "f.uml:1:3: The quote ' is not closed.");
  for (const char *word : {"", "plain", "a b", "it's", "\"", "\\", "#x", "~", "$(x)", "a\nb"}) {
    errors.clear();
    const auto again = split_uml_text(quote_uml_word(word), "", errors);
    REQUIRE(again.size() == 1);
    CHECK(again[0].text == word);
    CHECK(errors.empty());
  }
}

TEST_CASE("a usual UML line") {
  CHECK(
      toml_for(
          "./linux mem=128M umid=demo ncpus=2 ubd0=/srv/root.img ubdbr=swap con=pts con0=fd:0,fd:1 "
          "ssl1=port:9000 vec0:transport=tap,ifname=tap0,depth=128,gro=1 init=/bin/sh quiet single "
          "TERM=vt100") ==
      R"([machine]
name      = "demo"
memory    = "128M"
vcpus     = 2
init      = "/bin/sh"
args      = ["single"]
env       = ["TERM=vt100"]
log_level = "err"

[[block]]
name   = "ubd0"
plugin = "file"
path   = "/srv/root.img"

[[block]]
name     = "ubdb"
plugin   = "file"
path     = "swap"
readonly = true

[[console]]
name   = "con*"
plugin = "pts"

[[console]]
name   = "con0"
plugin = "fd"
input  = 0
output = 1

[[serial]]
name   = "ssl1"
plugin = "port"
port   = 9000

[[net]]
name   = "vec0"
plugin = "tap"
depth  = 128
gro    = true
ifname = "tap0"
)");
}

TEST_CASE("later words take the place of earlier ones, and order does not matter to defaults") {
  CHECK(toml_for("mem=64M con0=pts con0=null mem=32M") ==
        "[machine]\nmemory = \"32M\"\n\n[[console]]\nname   = \"con0\"\nplugin = \"null\"\n");
  CHECK_THAT(toml_for("con0=fd:0,fd:1 con=pts"),
             Contains("name   = \"con*\"") && Contains("name   = \"con0\""));
  CHECK_THAT(toml_for("con2=pts con1=null con2=null,pts con1=pts"),
             Contains("output_channel = { plugin = \"pts\" }"));
}

TEST_CASE("sizes as Linux reads them") {
  CHECK_THAT(toml_for("mem=134217728"), Contains("\"128M\""));
  CHECK_THAT(toml_for("mem=65536k"), Contains("\"64M\""));
  CHECK_THAT(toml_for("mem=0x4000000"), Contains("\"64M\""));
  CHECK_THAT(toml_for("mem=33554433"), Contains("\"32772K\""));
  CHECK_THAT(errors_of("quiet mem=much"), Contains("word 2, \"mem=much\": \"much\" is no size"));
}

TEST_CASE("disks, their flags and COW files") {
  CHECK_THAT(toml_for("ubd0=root.cow,root.img"),
             Contains("plugin  = \"cow\"") && Contains("backing = \"root.img\""));
  CHECK_THAT(toml_for("ubdc=a.cow:b"),
             Contains("name    = \"ubdc\"") && Contains("backing = \"b\""));
  CHECK_THAT(toml_for("ubd0=old.cow"), Contains("plugin = \"cow\""));
  CHECK_THAT(toml_for("ubd0d=old.cow"), Contains("plugin = \"file\""));
  CHECK_THAT(toml_for("ubd1rsct=x"), Contains("readonly = true") && Contains("sync     = true") &&
                                         Contains("lock     = false") &&
                                         Contains("discard  = false"));
  CHECK_THAT(errors_of("ubd0q=x"), Contains("no flag \"q\""));
  CHECK_THAT(errors_of("ubd0="), Contains("file is missing"));
  CHECK_THAT(errors_of("ubd0=a,"), Contains("backing file behind \"a,\""));
  CHECK_THAT(errors_of("ubd0d=a,b"), Contains("contradicts"));
  CHECK_THAT(errors_of("ubd0=a ubda=b"),
             Contains("word 2, \"ubda=b\": The disk ubda is given twice; the other is word 1"));
  CHECK_THAT(errors_of("udb0=a"), Contains("write ubd0="));
  CHECK_THAT(toml_for("ubd512=a"), Contains("\"ubd512\""));
  CHECK_THAT(errors_of("ubd65536=a"), Contains("no disk ubd65536"));
  CHECK_THAT(errors_of("ubd=sync"), Contains("at each"));
}

TEST_CASE("the root: disks, hostfs and initrd") {
  for (const char *root : {"/dev/ubda", "ubd0", "/dev/ubd0", "/dev/ubd/0", "98:0"}) {
    CHECK_THAT(toml_for(fmt::format("ubd0=x root={} ro", root)),
               Contains("[root]\nsource  = \"ubd0\"\noptions = [\"ro\"]"));
  }
  CHECK_THAT(toml_for("ubdb=x root=98:16 rootfstype=ext4 rootflags=noatime"),
             Contains("source  = \"ubd1\"") && Contains("type    = \"ext4\"") &&
                 Contains("[\"noatime\"]"));
  CHECK_THAT(toml_for("root=/dev/root rootfstype=hostfs rootflags=/srv/root rw"),
             Contains("source  = \"/srv/root\"\ntype    = \"hostfs\"\noptions = [\"rw\"]"));
  CHECK_THAT(toml_for("rootfstype=hostfs hostfs=/jail rootflags=/a"), Contains("\"/jail/a\""));
  CHECK_THAT(toml_for("rootfstype=hostfs"), Contains("source = \"/\""));
  CHECK_THAT(toml_for("ubd0r=/some/directory"),
             Contains("source  = \"/some/directory\"") && Contains("[\"ro\"]"));
  CHECK_THAT(toml_for("initrd=i.cpio"), Contains("source = \"i.cpio\"\ntype   = \"initramfs\""));
  // Without root= the disks are only there: the embedded root file system boots.
  CHECK_THAT(toml_for("ubd0=x"), !Contains("[root]"));
  CHECK_THAT(errors_of("root=/dev/ubda"), Contains("there is no ubd0="));
  CHECK_THAT(errors_of("ubda=x root=/dev/ubda1"), Contains("partition"));
  CHECK_THAT(errors_of("ubda=x root=98:1"), Contains("partition"));
  CHECK_THAT(errors_of("root=/dev/root"), Contains("needs rootfstype=hostfs"));
  CHECK_THAT(errors_of("root=/dev/sda"), Contains("no disk of this machine"));
  CHECK_THAT(errors_of("initrd=i root=/dev/ubda"), Contains("initrd is the root"));
  CHECK_THAT(errors_of("rootflags=/x"), Contains("needs root="));
  CHECK_THAT(errors_of("rootfstype=hostfs rootflags=x"), Contains("rootflags=/DIRECTORY"));
  CHECK_THAT(errors_of("hostfs=/x"), Contains("[[mount]]"));
  CHECK_THAT(errors_of("rootfstype=hostfs hostfs=/x,append"), Contains("append"));
  CHECK_THAT(errors_of("ubd1=/some/directory"), Contains("no disk"));
  CHECK_THAT(errors_of("root="), Contains("value behind \"root=\" is missing"));
}

TEST_CASE("what nobody knows goes to init as Linux does it") {
  CHECK(
      toml_for("single FOO=bar printk.time=1 quiet s -- mem=4 x=y") ==
      "[machine]\nargs      = [\"single\", \"s\", \"mem=4\", \"x=y\"]\nenv       = [\"FOO=bar\"]\n"
      "cmdline   = [\"printk.time=1\"]\nlog_level = \"err\"\n");
  CHECK_THAT(errors_of("3<>file"), Contains("shell's"));
}

TEST_CASE("log levels, the log's place and the console") {
  CHECK_THAT(toml_for("loglevel=5"), Contains("\"warning\""));
  CHECK_THAT(toml_for("quiet debug"), Contains("\"debug\""));
  CHECK_THAT(toml_for("loglevel=0"), Contains("\"emerg\""));
  CHECK_THAT(errors_of("loglevel=x"), Contains("no log level"));
  CHECK_THAT(toml_for("stderr=1"), Contains("log_to = \"stderr\""));
  CHECK_THAT(errors_of("stderr=yes"), Contains("stderr=1"));
  CHECK(toml_for("console=tty0") == "");
  CHECK_THAT(errors_of("console=ttyS0"), Contains("con0"));
  CHECK_THAT(errors_of("con1=/dev/tty8"), Contains("con1=tty:/dev/tty8"));
  CHECK_THAT(errors_of("con1=nosuch"), Contains("word 1, \"con1=nosuch\""));
}

TEST_CASE("network interfaces of both kinds") {
  CHECK(toml_for("eth0=tuntap,tap0,fe:fd:0:0:0:1,192.168.0.1") ==
        "[[net]]\nname    = \"eth0\"\nplugin  = \"tap\"\nhost_ip = \"192.168.0.1\"\nifname  = "
        "\"tap0\"\n"
        "mac     = \"fe:fd:0:0:0:1\"\n");
  CHECK_THAT(toml_for("eth0=tuntap,,,192.168.0.1"), Contains("host_ip"));
  CHECK(toml_for("eth1=mcast,,239.0.0.1,1103,0,,,") ==
        "[[net]]\nname   = \"eth1\"\nplugin = \"mcast\"\ngroup  = \"239.0.0.1\"\nport   = "
        "1103\nttl    = 0\n");
  CHECK(toml_for("eth0=daemon") == "[[net]]\nname   = \"eth0\"\nplugin = \"daemon\"\n");
  CHECK_THAT(toml_for("eth0=daemon,,unix,/tmp/uml.ctl"), Contains("socket = \"/tmp/uml.ctl\""));
  CHECK_THAT(toml_for("eth0=slirp,,/usr/bin/slirp,-P,a_b"),
             Contains("command = \"/usr/bin/slirp -P a_b\""));
  CHECK_THAT(toml_for("eth0=pcap,any,tcp,nopromisc,optimize"), Contains("filter   = \"tcp\"") &&
                                                                   Contains("promisc  = false") &&
                                                                   Contains("optimize = true"));
  CHECK_THAT(toml_for("vec0:transport=l2tpv3,udp=1,src=a,dst=b,src_port=1,dstport=2,rx_session="
                      "0xffffffff,tx_session=1"),
             Contains("rx_session = 4294967295") && Contains("srcport    = 1") &&
                 Contains("udp        = true"));
  CHECK_THAT(errors_of("eth0=tuntap,,192.168.0.252"), Contains("fourth parameter"));
  CHECK_THAT(errors_of("eth0=tuntap,t,fd:fe:1:2:3:4"), Contains("group's"));
  CHECK_THAT(errors_of("eth0=ethertap,tap0"), Contains("tuntap,TAP"));
  CHECK_THAT(errors_of("eth0=slip,1.2.3.4"), Contains("SLIP"));
  CHECK_THAT(errors_of("eth0=tuntop"), Contains("did you mean \"tuntap\""));
  CHECK_THAT(errors_of("eth0=mcast,,a,b"), Contains("must be a number"));
  CHECK_THAT(errors_of("eth0=daemon,,tcp"), Contains("only unix"));
  CHECK_THAT(errors_of("eth0=mcast,,a,1,1,1"), Contains("too many"));
  CHECK_THAT(errors_of("eth0=mcast eth0=mcast"), Contains("given twice"));
  CHECK_THAT(errors_of("vec0:ifname=tap0"), Contains("no transport="));
  CHECK_THAT(errors_of("vec0:transport=tap,depht=1"), Contains("did you mean \"depth\""));
  CHECK_THAT(errors_of("vec0:transport=tap,gro=yes"), Contains("must be 0 or 1"));
  CHECK_THAT(errors_of("vec0=tap"), Contains("colon"));
  // Converted, but nothing boots with it yet: as the machine file says.
  const auto loaded = parse_machine("", "line", "/base", read("eth0=mcast").settings, catalog());
  REQUIRE(loaded.errors.size() == 1);
  CHECK(loaded.errors[0].where == "word 1, \"eth0=mcast\"");
}

TEST_CASE("every word of the table converts or is refused with a reason") {
  for (const auto &rule : uml_rules()) {
    INFO(rule.name);
    std::string line(rule.name);
    if (rule.takes != UmlTakes::Nothing) line += "=1";
    const auto machine = read(line);
    if (rule.action == UmlAction::Refuse || rule.action == UmlAction::NeedsValue) {
      REQUIRE(machine.errors.size() == 1);
      CHECK(machine.errors[0].message.ends_with('.'));
      CHECK(machine.settings.empty());
    } else {
      CHECK_FALSE(rule.meaning.empty());
    }
    for (const auto &setting : machine.settings) {
      CHECK_THAT(setting.assignment, !Contains("machine.args") && !Contains("machine.env"));
    }
  }
}

TEST_CASE("a machine file in UML's words, and back") {
  const std::string file = R"([machine]
name      = "demo"
directory = "/run/guests"
memory    = "128M"
vcpus     = 2
init      = "/bin/sh"
args      = ["-s", "x y"]
env       = ["FOO=a b"]
cmdline   = ["printk.time=1"]
log_level = "warning"
log_to    = "stderr"
notify      = "/run/notify"
tty_log_dir = "/srv/logs"

[root]
source  = "/srv/directory"
type    = "hostfs"
options = ["ro"]

[[block]]
name     = "ubd0"
plugin   = "file"
path     = "/srv/disk.img"
discard  = false
lock     = false
readonly = true
sync     = true

[[block]]
name    = "ubdb"
plugin  = "cow"
backing = "/srv/b.img"
path    = "/srv/a.cow"

[[console]]
name   = "con*"
plugin = "pts"

[[console]]
name   = "con0"
plugin = "fd"
input  = 0
output = 1

[[serial]]
name           = "ssl2"
plugin         = "pts"
output_channel = { plugin = "null" }

[[net]]
name   = "vec0"
plugin = "tap"
depth  = 128
gro    = true
ifname = "tap0"

[[net]]
name   = "eth0"
plugin = "daemon"
mac    = "fe:fd:0:0:0:2"
socket = "/tmp/uml.ctl"
)";
  const auto words = words_for(file);
  CHECK(words ==
        "umid=demo uml_dir=/run/guests mconsole=notify:/run/notify mem=128M ncpus=2 init=/bin/sh "
        "'FOO=a b' printk.time=1 "
        "loglevel=5 stderr=1 tty_log_dir=/srv/logs "
        "root=/dev/root rootfstype=hostfs rootflags=/srv/directory ro ubd0rsct=/srv/disk.img "
        "ubdb=/srv/a.cow,/srv/b.img con=pts con0=fd:0,fd:1 ssl2=pts,null "
        "vec0:transport=tap,depth=128,gro=1,ifname=tap0 "
        "eth0=daemon,fe:fd:0:0:0:2,unix,/tmp/uml.ctl -- -s 'x y'");
  const auto again = toml_for(words);
  CHECK(words_for(again) == words);
}

TEST_CASE("logs of terminals and notifications, both ways") {
  for (const std::string words : {"umid=x tty_log_fd=7", "umid=x tty_log_dir=/srv/logs",
                                  "umid=x mconsole=notify:/run/notify"}) {
    CAPTURE(words);
    CHECK(words_for(toml_for(words)) == words);
  }
  CHECK_THAT(toml_for("tty_log_fd=7"), Contains("tty_log_fd = 7"));
  CHECK_THAT(toml_for("tty_log_dir=/srv/logs"), Contains("tty_log_dir = \"/srv/logs\""));
  CHECK_THAT(toml_for("mconsole=notify:/run/n"), Contains("notify = \"/run/n\""));
  CHECK(words_for("[machine]\nname='x'\nnotify='n'\ntty_log_dir='l'\n") ==
        "umid=x mconsole=notify:/base/n tty_log_dir=/base/l");
}

TEST_CASE("relative paths become absolute in words") {
  CHECK(words_for("[[block]]\nname='ubd0'\nplugin='file'\npath='x/../d.img'\n") ==
        "ubd0=/base/d.img");
  CHECK(words_for("[root]\nsource='directory'\n") ==
        "root=/dev/root rootfstype=hostfs rootflags=/base/directory");
  CHECK(words_for("[root]\nsource='i.cpio'\n") == "initrd=/base/i.cpio");
  CHECK(words_for("[root]\nsource='ubdc'\ntype='ext4'\n") == "root=/dev/ubdc rootfstype=ext4");
}

TEST_CASE("what UML has no word for is refused with its place") {
  CHECK_THAT(write_errors("[machine]\nstrace = true\n"),
             Contains("m.toml:2:1") && Contains("strace"));
  CHECK_THAT(write_errors("[[mount]]\nhost='/'\nguest='/m'\n"), Contains("no word for a mount"));
  CHECK_THAT(write_errors("[plugins]\npath=['/x']\n"), Contains("[plugins]"));
  CHECK_THAT(write_errors("[[net]]\nname='lan'\nplugin='tap'\n"), Contains("eth0"));
  CHECK_THAT(write_errors("[[net]]\nname='eth0'\nplugin='tap'\ndepth=3\n"),
             Contains("only these parameters"));
  CHECK_THAT(write_errors("[[block]]\nname='ubd0'\nplugin='nbd'\npath='x'\n"), Contains("nbd"));
  CHECK_THAT(write_errors("[[block]]\nname='ubd0'\nplugin='file'\npath='a,b'\n"),
             Contains("comma"));
  CHECK_THAT(write_errors("[[console]]\nname='con0'\nplugin='nosuch'\n"), Contains("nosuch"));
  CHECK_THAT(write_errors("[machine]\nenv = ['mem=4']\n"), Contains("something else"));
  CHECK_THAT(write_errors("[machine]\nmemroy = 4\n"), Contains("m.toml:2:1") && Contains("memroy"));
  CHECK_THAT(write_errors("[machine\n"), Contains("m.toml:1"));
}

TEST_CASE("what no machine file may say has no word either") {
  const auto refused = [](const char *text, const char *why) {
    INFO(text);
    CHECK_THAT(write_errors(text), Contains("m.toml:2:") && Contains(why));
  };
  refused("[machine]\nmemory = 0\n", "\"memory\"");
  refused("[machine]\nmemory = '0'\n", "\"memory\"");
  refused("[machine]\nmemory = '64M1'\n", "\"memory\"");
  refused("[machine]\nmemory = 67108865\n", "multiple");
  refused("[machine]\nvcpus = 0\n", "\"vcpus\"");
  refused("[machine]\nvcpus = -1\n", "\"vcpus\"");
  refused("[machine]\nname = 'a b'\n", "no name for a machine");
  refused("[machine]\ninit = 'relative'\n", "absolute path");
  refused("[machine]\ndirectory = ''\n", "empty");
  refused("[machine]\nlog_to = 'nowhere'\n", "log_to");
  refused("[debug]\ngdb = 'carrier pigeon'\n", "gdb");
  CHECK_THAT(write_errors("[[console]]\nname='con1'\nplugin='null'\n"
                          "[[console]]\nname='con1'\nplugin='null'\n"),
             Contains("m.toml:5") && Contains("con1"));
  // Files of another host are none of its business.
  CHECK(words_for("[machine]\nname='x'\ntty_log_dir='/not/here'\n") ==
        "umid=x tty_log_dir=/not/here");
}
