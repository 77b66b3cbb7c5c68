// Writes lowrank.h: a template, with the ops that list.def and the contracts' visits tell. What stands in the contracts' comments
// (equations, shapes) becomes the header's comments.
//   write_header TEMPLATE CONTRACTS_FOLDER VERSION > lowrank.h
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "../core/dlpack.h"
#include "../ops/all.h"

namespace {

using namespace lowrank;

struct Field {
  std::string type, name, what;  // what: "out, act"
  int count = 1;
};

// The operands of a contract as the fields of a struct, in call order.
class Fields {
 public:
  void out(const char* name, Tensor&, Kind kind) { add("lowrank_tensor", name, "out, " + of(kind)); }
  void in(const char* name, Tensor&, Kind kind) { add("lowrank_tensor", name, "in, " + of(kind)); }
  void inout(const char* name, Tensor&, Kind kind) { add("lowrank_tensor", name, "in and out, " + of(kind)); }
  void optional(const char* name, Tensor&, Kind kind) { add("lowrank_tensor", name, "in, " + of(kind)); }
  void optional_out(const char* name, Tensor&, Kind kind) { add("lowrank_tensor", name, "out, " + of(kind)); }
  void optional_inout(const char* name, Tensor&, Kind kind) { add("lowrank_tensor", name, "in and out, " + of(kind)); }
  void weight(const char* name, Weight&) { add("lowrank_weight", name, "in"); }
  void value(const char* name, int64_t&) { add("int64_t", name, ""); }
  void value(const char* name, float&) { add("float", name, ""); }
  void value(const char* name, uint32_t&) { add("uint32_t", name, ""); }
  const std::vector<Field>& all() const { return fields_; }

 private:
  static std::string of(Kind kind) {
    switch (kind) {
      case Kind::activation: return "act";
      case Kind::f32: return "f32";
      case Kind::i32: return "i32";
      case Kind::frozen:
      case Kind::floating: return "f32, f16 or bf16";
      case Kind::any: return "any dtype";
    }
    return "";
  }
  // rank0, rank1, rank2 are rank[3].
  void add(const std::string& type, const std::string& name, const std::string& what) {
    const std::string stem = name.substr(0, name.size() - 1);
    if (name.back() == '0') return fields_.push_back({type, stem, what, 1});
    if (!fields_.empty() && fields_.back().name == stem && name.back() == static_cast<char>('0' + fields_.back().count)) {
      ++fields_.back().count;
      return;
    }
    fields_.push_back({type, name, what, 1});
  }
  std::vector<Field> fields_;
};

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
  return text;
}

// The text of the contracts, for its comments.
class Sources {
 public:
  explicit Sources(const std::filesystem::path& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".h") text_ += read_file(entry.path());
  }
  // The lines above a struct.
  std::vector<std::string> above(const std::string& type) const {
    std::vector<std::string> lines;
    std::istringstream before(text_.substr(0, text_.find("\nstruct " + type + " {") + 1));
    for (std::string line; std::getline(before, line);) {
      if (line.rfind("//", 0) == 0) lines.push_back(line.substr(line.find_first_not_of("/ ") == std::string::npos ? line.size() : 2));
      else lines.clear();
    }
    return lines;
  }
  // What stands beside the member that the visit of `type`, or of a struct inside it, calls `name`.
  std::string beside(const std::string& type, const std::string& name) const {
    const std::string body = body_of(type);
    std::smatch member, note;
    if (std::regex_search(body, member, std::regex("\"" + name + "0?\", (\\w+)"))) {
      const std::regex line("\\b" + member[1].str() + "(\\[\\w+\\])?;\\s*// (.*)");
      return std::regex_search(body, note, line) ? note[2].str() : "";
    }
    for (const std::string inner : {"Heads", "LoraParts", "Gate"})
      if (body.find("  " + inner + " ") != std::string::npos) return beside(inner, name);
    return "";
  }

 private:
  std::string body_of(const std::string& type) const {
    const size_t begin = text_.find("\nstruct " + type + " {");
    return begin == std::string::npos ? "" : text_.substr(begin, text_.find("\n};", begin) - begin);
  }
  std::string text_;
};

std::string padded(const std::string& text, size_t width) { return text + std::string(text.size() < width ? width - text.size() : 0, ' '); }

std::string declaration(const Field& field) {
  return field.type + " " + field.name + (field.count > 1 ? "[" + std::to_string(field.count) + "]" : "") + ";";
}

std::string written(const Field& field, const std::string& note, size_t width) {
  const std::string comment = field.what.empty() || note.empty() ? field.what + note : field.what + ": " + note;
  return "  " + (comment.empty() ? declaration(field) : padded(declaration(field), width) + "  /* " + comment + " */") + "\n";
}

template <class Contract>
std::string op_text(const Sources& sources, const std::string& stem, const std::string& type) {
  Contract op{};
  Fields fields;
  op.visit(fields);
  size_t width = 0;
  for (const Field& field : fields.all()) width = std::max(width, declaration(field).size());
  std::string text = "\n/* " + stem;
  for (const std::string& line : sources.above(type)) text += "\n *" + line;
  text += " */\ntypedef struct lowrank_" + stem + "_args {\n";
  for (const Field& field : fields.all()) text += written(field, sources.beside(type, field.name), width);
  return text + "} lowrank_" + stem + "_args;\nLOWRANK_API lowrank_status lowrank_" + stem + "(lowrank_context* context, const lowrank_" + stem + "_args* args);\n";
}

std::string all_ops(const Sources& sources) {
  std::string text;
#define OP(stem, Contract) text += op_text<Contract>(sources, #stem, #Contract);
#include "../ops/list.def"
#undef OP
  return text;
}

// What the compiler sees of a header: without comments, each run of spaces as one.
std::string bare(const std::string& header) {
  std::string code;
  for (size_t at = 0; at < header.size();) {
    if (header.compare(at, 2, "/*") == 0) at = header.find("*/", at) + 1;
    const char c = header.compare(at, 1, "/") == 0 || isspace(header[at]) ? ' ' : header[at];
    if (c != ' ' || (!code.empty() && code.back() != ' ')) code += c;
    ++at;
  }
  return code;
}

// FNV-1a
uint32_t hash_of(const std::string& text) {
  uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return fprintf(stderr, "usage: write_header TEMPLATE CONTRACTS VERSION\n"), 2;
  std::string header = read_file(arguments[1]);
  if (header.empty()) return fprintf(stderr, "write_header: %s can't be read\n", arguments[1]), 1;
  header = replace_all(header, "@OPS@\n", all_ops(Sources(arguments[2])));
  header = replace_all(header, "@DLPACK@", std::to_string(dlpack::kMajor) + "." + std::to_string(dlpack::kMinor));
  char abi[16];
  snprintf(abi, sizeof abi, "0x%08x", hash_of(bare(header)));
  header = replace_all(header, "@ABI@", abi);
  fputs(replace_all(header, "@VERSION@", arguments[3]).c_str(), stdout);
}
