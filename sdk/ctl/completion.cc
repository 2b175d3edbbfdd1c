// SPDX-License-Identifier: Apache-2.0
//
// completion bash: a script made from the commands themselves, so that it cannot be out of date.
#include "commands.h"
#include "output.h"

namespace keyway::ctl {
namespace {

// The words that can follow a command: its subcommands and flags.
std::string WordsOf(const CLI::App* app) {
  std::string words;
  for (const CLI::App* child : app->get_subcommands(nullptr)) words += child->get_name() + " ";
  for (const CLI::Option* option : app->get_options()) {
    for (const std::string& name : option->get_lnames()) words += "--" + name + " ";
  }
  return words;
}

// One case a command: "path) words".
void AppendCases(const CLI::App* app, const std::string& path, std::string* out) {
  for (const CLI::App* child : app->get_subcommands(nullptr)) {
    const std::string child_path = path + "/" + child->get_name();
    out->append("    \"" + child_path + "\") words=\"" + WordsOf(child) + "\" ;;\n");
    AppendCases(child, child_path, out);
  }
}

std::string BashScript(const CLI::App* app) {
  std::string cases;
  AppendCases(app, "", &cases);
  return "# bash completion of keywayctl; use: source <(keywayctl completion bash)\n"
         "_keywayctl() {\n"
         "  local current=\"${COMP_WORDS[COMP_CWORD]}\" path=\"\" words=\"\" i word\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    word=\"${COMP_WORDS[i]}\"\n"
         "    case \"$path/$word\" in\n" +
         [&] {
           std::string known;
           std::string all;
           AppendCases(app, "", &all);
           for (size_t begin = 0; begin < all.size();) {
             const size_t end = all.find('\n', begin);
             const std::string line = all.substr(begin, end - begin);
             known += "      " + line.substr(4, line.find(')') - 4) + ") path=\"$path/$word\" ;;\n";
             begin = end + 1;
           }
           return known;
         }() +
         "    esac\n"
         "  done\n"
         "  case \"$path\" in\n"
         "    \"\") words=\"" +
         WordsOf(app) + "\" ;;\n" + cases +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "  [[ ${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=($(compgen -f -- \"$current\"))\n"
         "}\n"
         "complete -F _keywayctl keywayctl\n";
}

}  // namespace

void AddCompletionCommand(CLI::App* app, Context* context) {
  CLI::App* completion = app->add_subcommand("completion", "Print a completion script for a shell");
  completion->require_subcommand(1);
  CLI::App* bash = completion->add_subcommand("bash", "For bash");
  bash->callback([app, context] {
    context->command = [app] {
      Print(BashScript(app));
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace keyway::ctl
