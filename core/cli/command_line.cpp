#include "cli/command_line.hpp"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <map>

#include "plugins/near_match.hpp"

namespace cowbird::cli {

namespace {

constexpr const char *kSetHelp =
    "Set a key of the machine file, by its dotted path; may be repeated";
constexpr const char *kGuestHelp = "A running guest: its name, directory or process id";
constexpr const char *kDirectoryHelp =
    "Where the run-time directories of guests are; COWBIRD_DIR or ~/.uml by default";
constexpr const char *kPathHelp = "Look for plugins in this folder first; may be repeated";

// The program's CLI11 tree, with the variables that parsing fills.
class Grammar {
 public:
  Grammar() {
    app_.set_version_flag("--version", "cowbird " COWBIRD_VERSION, "Print the version");
    app_.set_help_flag("-h,--help", "Print this help");
    app_.require_subcommand(0, 1);
    examples_[&app_] =
        "  cowbird boot examples/hello.toml\n"
        "  cowbird run -- /bin/busybox echo hi\n";
    add_boot();
    add_run();
    add_check();
    add_convert();
    add_ls();
    add_console();
    add_gdb();
    add_gdbserver();
    add_plugin();
    add_mconsole();
    add_completion();
  }

  ParsedCommand parse(std::vector<std::string> words) {
    // What follows the first -- belongs to the guest and is not looked at here.
    auto dashes = std::ranges::find(words, "--");
    const bool has_tail = dashes != words.end();
    std::vector<std::string> tail(has_tail ? dashes + 1 : dashes, words.end());
    words.erase(dashes, words.end());
    if (!has_tail) split_mconsole(words, tail);
    std::ranges::reverse(words);  // as CLI11 wants them
    try {
      app_.parse(words);
    } catch (const CLI::CallForHelp &) {
      return PrintText{help_text(docs(), path_of(*deepest()))};
    } catch (const CLI::CallForVersion &) {
      return PrintText{"cowbird " COWBIRD_VERSION "\n"};
    } catch (const CLI::ParseError &error) {
      return WrongUsage{describe(error)};
    }
    return result(std::move(tail), has_tail);
  }

  std::vector<CommandDoc> docs() {
    std::vector<CommandDoc> found;
    collect(app_, found);
    return found;
  }

 private:
  static CLI::Option *repeatable(CLI::Option *option) { return option->allow_extra_args(false); }

  CLI::App *command(CLI::App &parent, const std::string &name, const std::string &help,
                    const std::string &example, const std::string &tail = "") {
    auto *sub = parent.add_subcommand(name, help);
    tails_[sub] = tail;
    examples_[sub] = example;
    return sub;
  }

  void add_boot() {
    boot_cmd_ = command(app_, "boot", "Boot the machine that a file describes",
                        "  cowbird boot examples/hello.toml\n"
                        "  cowbird boot demo.toml --set machine.memory=256M --set "
                        "block.ubd0.path=other.img\n"
                        "  cowbird boot demo.toml -- -s\n"
                        "  cowbird boot --daemon demo.toml\n"
                        "  cowbird boot --uml 'mem=128M umid=demo ubd0=disk.img con0=fd:0,fd:1'\n",
                        "[-- INIT ARGS...]");
    boot_cmd_->add_option("FILE", boot_.file, "The machine file");
    boot_cmd_
        ->add_option("--uml", boot_.uml,
                     "The machine as a User Mode Linux command line, instead of FILE")
        ->type_name("WORDS");
    boot_cmd_->add_flag("-d,--daemon", boot_.daemon,
                        "Leave the guest to itself once it runs; attach with `cowbird console`");
    boot_cmd_->add_option("--log", boot_.log, "Where a daemon's own messages go, such as a panic's")
        ->type_name("FILE");
    repeatable(boot_cmd_->add_option("--set", boot_.sets, kSetHelp)->type_name("KEY=VALUE"));
  }

  void add_run() {
    run_cmd_ =
        command(app_, "run", "Run one program in a throw-away guest, with your input and output",
                "  cowbird run -- /bin/busybox echo hi\n"
                "  cowbird run --mount $PWD:/work --workdir /work -- sh build.sh\n"
                "  cowbird run --root /srv/debian --read-only -- /bin/ls /\n",
                "-- COMMAND [ARGS...]");
    run_cmd_
        ->add_option("--root", run_.root,
                     "Root file system: a directory or an initramfs; the embedded one otherwise")
        ->type_name("DIR|IMAGE");
    run_cmd_->add_flag("--read-only", run_.read_only, "The root file system is read-only");
    run_cmd_->add_flag("--strace", run_.strace, "Show every system call, on standard error");
    repeatable(run_cmd_
                   ->add_option("--mount", run_.mounts,
                                "Show a directory of the host in the guest; may be repeated")
                   ->type_name("HOST:GUEST[:ro]"));
    run_cmd_->add_option("--memory", run_.memory, "Memory of the guest, 128M by default")
        ->type_name("SIZE");
    run_cmd_->add_option("--vcpus", run_.vcpus, "Processors of the guest, 1 by default")
        ->type_name("COUNT");
    repeatable(run_cmd_
                   ->add_option("-e,--env", run_.env,
                                "Set a variable for the program; without a value, to the caller's")
                   ->type_name("NAME[=VALUE]"));
    run_cmd_
        ->add_option("-w,--workdir", run_.workdir,
                     "Directory of the guest to start in, / by default")
        ->type_name("DIR");
    repeatable(run_cmd_->add_option("--set", run_.sets, kSetHelp)->type_name("KEY=VALUE"));
  }

  void add_check() {
    check_cmd_ = command(app_, "check", "Check a machine file, and print what it would start",
                         "  cowbird check demo.toml\n"
                         "  cowbird check demo.toml --set machine.vcpus=4\n");
    check_cmd_->add_option("FILE", check_.file, "The machine file")->required();
    repeatable(check_cmd_->add_option("--set", check_.sets, kSetHelp)->type_name("KEY=VALUE"));
  }

  void add_convert() {
    convert_cmd_ =
        command(app_, "convert", "Translate UML command lines to machine files, and back",
                "  cowbird convert -- mem=128M ubd0=root.img con0=fd:0,fd:1 con=pts\n"
                "  cowbird convert start-uml.txt > demo.toml\n"
                "  cowbird convert demo.toml\n",
                "[-- UML WORDS...]");
    convert_cmd_->add_option("FILE", convert_.file,
                             "A file of UML words, or a machine file (.toml); - is standard input");
    convert_cmd_
        ->add_option("--to", convert_.to, "What FILE becomes: uml for names in .toml, else toml")
        ->type_name("uml|toml");
  }

  void add_ls() {
    ls_cmd_ = command(app_, "ls", "List the guests that run now",
                      "  cowbird ls\n"
                      "  cowbird ls --json\n");
    ls_cmd_->add_flag("--json", list_guests_.json, "For programs: an array of objects");
    ls_cmd_->add_flag("--names", list_guests_.names_only, "Print the names only");
    ls_cmd_->add_option("--dir", list_guests_.directory, kDirectoryHelp)->type_name("DIR");
  }

  void add_console() {
    console_cmd_ = command(app_, "console", "Attach your terminal to a console of a running guest",
                           "  cowbird console demo\n"
                           "  cowbird console demo ssl0 --escape ctrl-a\n"
                           "  cowbird console demo --read-only > demo.log\n");
    console_cmd_->add_option("GUEST", console_.guest, kGuestHelp)->required();
    console_cmd_->add_option("DEVICE", console_.device,
                             "The console or serial line, such as con1; con0 by default");
    console_cmd_->add_flag("-r,--read-only", console_.read_only, "Watch only; ctrl-c ends it");
    console_cmd_
        ->add_option("--escape", console_.escape,
                     "The key before d (leave), ? (help) or itself; ctrl-] by default")
        ->type_name("KEY|none");
    console_cmd_->add_option("--dir", console_.directory, kDirectoryHelp)->type_name("DIR");
  }

  void add_plugin() {
    plugin_cmd_ = command(app_, "plugin", "Look at plugins",
                          "  cowbird plugin list\n  cowbird plugin show fd\n");
    plugin_cmd_->require_subcommand(1);
    list_cmd_ =
        command(*plugin_cmd_, "list", "List the plugins that are installed, and broken ones",
                "  cowbird plugin list\n"
                "  cowbird plugin list --path ./my-plugins\n");
    repeatable(list_cmd_->add_option("--path", list_.path, kPathHelp)->type_name("DIR"));
    list_cmd_->add_flag("--names", list_.names_only, "Print the names only");
    show_cmd_ = command(*plugin_cmd_, "show", "Print what a plugin is and which keys it has",
                        "  cowbird plugin show fd\n"
                        "  cowbird plugin show ./my-plugins/tap.so\n");
    show_cmd_->add_option("NAME", show_.name, "Its name, or the path of its file")->required();
    repeatable(show_cmd_->add_option("--path", show_.path, kPathHelp)->type_name("DIR"));
  }

  void add_gdb() {
    gdb_cmd_ = command(app_, "gdb", "Start gdb on a running guest, or on the core file of one",
                       "  cowbird gdb demo\n"
                       "  cowbird gdb demo -- -batch -ex 'info threads'\n"
                       "  cowbird gdb --core /var/tmp/demo.4711.core\n",
                       "[-- GDB ARGS...]");
    gdb_cmd_->add_option("GUEST", gdb_.guest, kGuestHelp);
    gdb_cmd_->add_option("--core", gdb_.core, "Look at this core file instead")->type_name("FILE");
    gdb_cmd_
        ->add_option("--program", gdb_.program,
                     "The program that left the core file, where it is not any more where it was")
        ->type_name("FILE");
    gdb_cmd_->add_flag("--no-script", gdb_.no_script, "Do not load cowbird-gdb.py");
    gdb_cmd_->add_option("--dir", gdb_.directory, kDirectoryHelp)->type_name("DIR");
  }

  void add_gdbserver() {
    server_cmd_ = command(app_, "gdbserver", "Serve a guest, or the core file of one, to gdb",
                          "  cowbird gdbserver demo --listen tcp:127.0.0.1:1234\n"
                          "  cowbird gdbserver --pid 4711 --listen unix:/tmp/demo.gdb\n"
                          "  gdb -ex 'target extended-remote | cowbird gdbserver demo --stdio'\n");
    server_cmd_->add_option("GUEST", server_.guest, kGuestHelp);
    server_cmd_->add_option("--pid", server_.pid, "The guest whose kernel is this process")
        ->type_name("PID")
        ->check(CLI::PositiveNumber);
    server_cmd_->add_option("--core", server_.core, "Serve this core file instead")
        ->type_name("FILE");
    server_cmd_
        ->add_option("--program", server_.program,
                     "The program that left the core file, where it is not any more where it was")
        ->type_name("FILE");
    auto *listen = server_cmd_->add_option("--listen", server_.listen,
                                           "Where to listen: tcp:HOST:PORT or unix:PATH");
    listen->type_name("ADDRESS");
    server_cmd_->add_flag("--stdio", stdio_, "Talk to gdb on standard input and output (default)")
        ->excludes(listen);
    server_cmd_->add_flag("--once", server_.once, "End when the first gdb has gone");
    server_cmd_->add_flag("--log-packets", server_.log_packets,
                          "Show what is said to gdb, on standard error");
    server_cmd_
        ->add_option("--write-core", server_.write_core,
                     "Write a core file of the guest and end; nothing is served")
        ->type_name("FILE");
    server_cmd_->add_flag("--guest-memory", server_.guest_memory,
                          "The core file holds the memory of the guest's programs too");
    server_cmd_->add_option("--dir", server_.directory, kDirectoryHelp)->type_name("DIR");
    // For the kernel that starts its server; not for people.
    server_cmd_->add_option("--announce", server_.announce)->group("");
    server_cmd_->add_option("--panic", server_.panic)->group("");
    server_cmd_->add_option("--thread", server_.thread)->group("");
  }

  void add_mconsole() {
    mconsole_cmd_ = command(app_, "mconsole", "Talk to the management console of a running guest",
                            "  cowbird mconsole demo\n"
                            "  cowbird mconsole demo version\n"
                            "  cowbird mconsole demo config con1=pts\n"
                            "  cowbird mconsole demo proc meminfo\n",
                            "[COMMAND...]");
    mconsole_cmd_->add_option("NAME", mconsole_.name, "Its name, directory or process id")
        ->required();
    mconsole_cmd_->add_option("--dir", mconsole_.directory, kDirectoryHelp)->type_name("DIR");
    mconsole_cmd_
        ->add_option("--timeout", mconsole_.timeout,
                     "How long to wait for an answer, 10 seconds by default")
        ->check(CLI::Range(1u, 86400u))
        ->type_name("SECONDS");
  }

  // What follows the guest's name is a command of the guest's, whatever it looks like.
  static void split_mconsole(std::vector<std::string> &words, std::vector<std::string> &tail) {
    if (words.empty() || words[0] != "mconsole") return;
    std::size_t at = 1;
    while (at < words.size() && words[at].starts_with("-")) {
      at += words[at] == "--dir" || words[at] == "--timeout" ? 2 : 1;
    }
    if (at + 1 >= words.size()) return;
    const auto first = words.begin() + static_cast<std::ptrdiff_t>(at) + 1;
    tail.assign(first, words.end());
    words.erase(first, words.end());
  }

  void add_completion() {
    completion_cmd_ = command(app_, "completion", "Print a completion script for a shell",
                              "  source <(cowbird completion bash)\n");
    completion_cmd_->add_option("SHELL", shell_, "Which shell: bash")->required();
  }

  ParsedCommand result(std::vector<std::string> tail, bool has_tail) {
    if (run_cmd_->parsed()) {
      if (tail.empty()) {
        return WrongUsage{
            "There is no command to run. Write it after --, as in: cowbird run -- /bin/ls /"};
      }
      run_.command = std::move(tail);
      return run_;
    }
    if (boot_cmd_->parsed()) {
      if (boot_.file.empty() == !boot_.uml) {
        return WrongUsage{
            "boot needs a machine file or --uml WORDS, and not both.\nTry: cowbird boot --help"};
      }
      if (!boot_.log.empty() && !boot_.daemon) {
        return WrongUsage{"--log is for --daemon; without it, messages are on standard error."};
      }
      boot_.init_args = std::move(tail);
      return boot_;
    }
    if (convert_cmd_->parsed()) {
      if (!convert_.to.empty() && convert_.to != "uml" && convert_.to != "toml") {
        return WrongUsage{fmt::format("--to is \"{}\", but must be uml or toml.", convert_.to)};
      }
      if (convert_.file.empty() == !has_tail || (has_tail && convert_.to == "uml")) {
        return WrongUsage{
            "convert needs a file, or UML words after --.\nTry: cowbird convert --help"};
      }
      convert_.words = std::move(tail);
      return convert_;
    }
    if (gdb_cmd_->parsed()) {
      gdb_.gdb_arguments = std::move(tail);
      if (gdb_.guest.empty() == gdb_.core.empty()) {
        return WrongUsage{
            "Say what to look at: a guest, as in `cowbird gdb demo`, or a core file, as "
            "in `cowbird gdb --core FILE`."};
      }
      return gdb_;
    }
    if (mconsole_cmd_->parsed()) {
      mconsole_.command = std::move(tail);
      return mconsole_;
    }
    if (has_tail) return WrongUsage{"Only boot, run, convert and gdb take arguments after --."};
    if (server_cmd_->parsed()) return gdbserver_arguments();
    if (check_cmd_->parsed()) return check_;
    if (ls_cmd_->parsed()) return list_guests_;
    if (console_cmd_->parsed()) return console_;
    if (list_cmd_->parsed()) return list_;
    if (show_cmd_->parsed()) return show_;
    if (completion_cmd_->parsed()) {
      if (shell_ != "bash")
        return WrongUsage{fmt::format("There is no completion for \"{}\", only for bash.", shell_)};
      return PrintText{bash_completion(docs())};
    }
    return WrongUsage{
        "A command is missing: boot, run, check, convert, ls, console, mconsole, gdb, "
        "gdbserver, plugin or completion."};
  }

  ParsedCommand gdbserver_arguments() {
    const int targets = static_cast<int>(!server_.guest.empty()) +
                        static_cast<int>(server_.pid != 0) +
                        static_cast<int>(!server_.core.empty());
    if (targets != 1) {
      return WrongUsage{"Say what to serve: one of a guest, --pid and --core."};
    }
    if (!server_.write_core.empty() && !server_.core.empty()) {
      return WrongUsage{"A core file is written of a running guest, not of a core file."};
    }
    if (server_.guest_memory && server_.write_core.empty()) {
      return WrongUsage{"--guest-memory is about the core file that --write-core writes."};
    }
    return server_;
  }

  // The subcommand that was being parsed.
  CLI::App *deepest() {
    CLI::App *app = &app_;
    for (auto subs = app->get_subcommands(); !subs.empty(); subs = app->get_subcommands()) {
      app = subs.front();
    }
    return app;
  }

  std::string describe(const CLI::ParseError &error) {
    std::string message = error.what();
    auto *app = deepest();
    const auto extras = app_.remaining(true);
    if (!extras.empty()) {
      const auto &word = extras.front();
      std::vector<std::string> names;
      if (word.starts_with("-")) {
        for (const auto *option : app->get_options()) {
          for (const auto &name : option->get_lnames()) names.push_back("--" + name);
        }
        message = fmt::format("There is no option {}", word);
      } else {
        for (const auto *sub : app->get_subcommands([](const CLI::App *) { return true; })) {
          names.push_back(sub->get_name());
        }
        message = names.empty() ? fmt::format("The argument \"{}\" was not expected", word)
                                : fmt::format("There is no command \"{}\"", word);
      }
      const auto near = plugins::near_match(word, names);
      message += near.empty() ? "." : fmt::format("; did you mean {}?", near);
    } else if (!message.ends_with('.')) {
      message += '.';
    }
    const auto path = path_of(*app);
    return message + "\nTry: cowbird " + path + (path.empty() ? "--help" : " --help");
  }

  // "plugin show"; empty for the program itself.
  static std::string path_of(const CLI::App &app) {
    if (!app.get_parent()) return {};
    const auto parent = path_of(*app.get_parent());
    return parent.empty() ? app.get_name() : parent + " " + app.get_name();
  }

  void collect(CLI::App &app, std::vector<CommandDoc> &found) {
    CommandDoc doc{path_of(app), app.get_description(), tails_[&app], examples_[&app], {}, true};
    for (const auto *option : app.get_options()) {
      if (option->get_group().empty()) continue;
      const bool positional = option->get_positional();
      doc.options.push_back(
          {positional ? option->get_name(true) : option->get_name(false, true),
           option->get_expected_max() == 0 || positional ? "" : option->get_type_name(),
           option->get_description(), positional, option->get_required()});
    }
    const auto subs = app.get_subcommands([](const CLI::App *) { return true; });
    doc.leaf = subs.empty();
    found.push_back(std::move(doc));
    for (auto *sub : subs) collect(*sub, found);
  }

  CLI::App app_{"Boots guests of Cowbird, a guest kernel that is an ordinary process", "cowbird"};
  std::map<const CLI::App *, std::string> tails_;
  std::map<const CLI::App *, std::string> examples_;
  CLI::App *boot_cmd_ = nullptr;
  CLI::App *run_cmd_ = nullptr;
  CLI::App *check_cmd_ = nullptr;
  CLI::App *convert_cmd_ = nullptr;
  CLI::App *ls_cmd_ = nullptr;
  CLI::App *console_cmd_ = nullptr;
  CLI::App *gdb_cmd_ = nullptr;
  CLI::App *server_cmd_ = nullptr;
  CLI::App *plugin_cmd_ = nullptr;
  CLI::App *list_cmd_ = nullptr;
  CLI::App *show_cmd_ = nullptr;
  CLI::App *mconsole_cmd_ = nullptr;
  CLI::App *completion_cmd_ = nullptr;
  BootArguments boot_;
  RunArguments run_;
  CheckArguments check_;
  ConvertArguments convert_;
  ListArguments list_guests_;
  ConsoleArguments console_;
  GdbArguments gdb_;
  GdbServerArguments server_;
  bool stdio_ = false;
  PluginListArguments list_;
  PluginShowArguments show_;
  MconsoleArguments mconsole_;
  std::string shell_;
};

}  // namespace

ParsedCommand parse_command_line(const std::vector<std::string> &arguments) {
  return Grammar().parse(arguments);
}

std::vector<CommandDoc> command_docs() { return Grammar().docs(); }

}  // namespace cowbird::cli
