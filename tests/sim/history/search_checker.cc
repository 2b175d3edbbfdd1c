// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/history/search_checker.h"

#include <algorithm>
#include <optional>
#include <unordered_set>

#include "tests/sim/history/random.h"

namespace keyway::sim {
namespace {

constexpr size_t kNone = SIZE_MAX;

// Calls and returns in the order of time, as a doubly linked list from which linearized operations are
// lifted. Entry 0 is the head.
struct Entry {
  size_t operation = kNone;
  size_t match = kNone;  // Of a call: its return.
  size_t previous = 0, next = kNone;
};

// A set of linearized operations and the state that they give, by two independent hashes: 2^-128 is the
// chance that two are mixed up.
struct Visited {
  uint64_t a = 0, b = 0;
  friend bool operator==(const Visited&, const Visited&) = default;
};
struct VisitedHash {
  size_t operator()(const Visited& visited) const { return visited.a; }
};

class Search {
 public:
  Search(const std::vector<SearchOperation>& operations, uint64_t steps_max)
      : operations_(operations), steps_max_(steps_max) {
    HistoryRandom random(operations.size());
    for (size_t i = 0; i < operations.size(); ++i) marks_.push_back({random.Next(), random.Next()});
    Build();
  }

  SearchResult Run() {
    uint64_t state = 0;
    Visited set;
    size_t at = entries_[0].next;
    size_t alternative = 0;
    while (required_ > 0) {
      if (++result_.steps > steps_max_) {
        result_.verdict = SearchVerdict::kGaveUp;
        return result_;
      }
      const bool is_call = at != kNone && entries_[at].match != kNone;
      if (is_call) {
        const size_t operation = entries_[at].operation;
        if (Advance(operation, &alternative, &state, &set)) {
          path_.push_back({at, alternative, previous_state_, previous_set_});
          Lift(at);
          at = entries_[0].next;
        } else {
          at = entries_[at].next;
        }
        alternative = 0;
        continue;
      }
      // The return of one that is not linearized yet, or the end of the list: back.
      if (at != kNone && path_.size() >= deepest_) {
        deepest_ = path_.size();
        result_.stuck_at = entries_[at].operation;
      }
      if (path_.empty()) {
        result_.verdict = SearchVerdict::kNotLinearizable;
        return result_;
      }
      const Choice choice = path_.back();
      path_.pop_back();
      Unlift(choice.entry);
      state = choice.state;
      set = choice.set;
      at = choice.entry;
      alternative = choice.alternative + 1;
    }
    return result_;
  }

 private:
  struct Choice {
    size_t entry = 0;
    size_t alternative = 0;
    uint64_t state = 0;  // Before it.
    Visited set;
  };

  void Build() {
    struct Point {
      int64_t time_ns;
      bool is_return;
      size_t operation;
    };
    std::vector<Point> points;
    for (size_t i = 0; i < operations_.size(); ++i) {
      points.push_back({operations_[i].call_ns, false, i});
      points.push_back({operations_[i].return_ns, true, i});
      if (operations_[i].return_ns != kNever) ++required_;
    }
    // At the same time calls come first: such operations are concurrent.
    std::stable_sort(points.begin(), points.end(), [](const Point& a, const Point& b) {
      return a.time_ns != b.time_ns ? a.time_ns < b.time_ns : a.is_return < b.is_return;
    });
    entries_.resize(points.size() + 1);
    std::vector<size_t> calls(operations_.size());
    for (size_t i = 0; i < points.size(); ++i) {
      Entry& entry = entries_[i + 1];
      entry.operation = points[i].operation;
      entry.previous = i;
      entries_[i].next = i + 1;
      if (points[i].is_return) {
        entries_[calls[points[i].operation]].match = i + 1;
      } else {
        calls[points[i].operation] = i + 1;
      }
    }
  }

  static std::optional<uint64_t> Apply(const std::vector<SearchStep>& steps, uint64_t state) {
    for (const SearchStep& step : steps) {
      switch (step.kind) {
        case SearchStep::Kind::kExpect:
          if (state != step.value) return std::nullopt;
          break;
        case SearchStep::Kind::kExpectNot:
          if (state == step.value) return std::nullopt;
          break;
        case SearchStep::Kind::kSet:
          state = step.value;
          break;
      }
    }
    return state;
  }

  // Takes the first alternative from `*alternative` on that the state allows and that is new.
  bool Advance(size_t operation, size_t* alternative, uint64_t* state, Visited* set) {
    const auto& alternatives = operations_[operation].alternatives;
    for (; *alternative < alternatives.size(); ++*alternative) {
      const std::optional<uint64_t> next = Apply(alternatives[*alternative], *state);
      if (!next.has_value()) continue;
      const Visited marked = {set->a ^ marks_[operation].a, set->b ^ marks_[operation].b};
      // The state goes into the key by a mix of its own.
      const uint64_t mixed = (*next + 1) * 0x9e3779b97f4a7c15u;
      if (!visited_.insert({marked.a ^ mixed, marked.b + (mixed ^ (mixed >> 29))}).second) continue;
      previous_state_ = *state;
      previous_set_ = *set;
      *state = *next;
      *set = marked;
      return true;
    }
    return false;
  }

  void Unlink(size_t at) {
    entries_[entries_[at].previous].next = entries_[at].next;
    if (entries_[at].next != kNone) entries_[entries_[at].next].previous = entries_[at].previous;
  }
  void Relink(size_t at) {
    entries_[entries_[at].previous].next = at;
    if (entries_[at].next != kNone) entries_[entries_[at].next].previous = at;
  }
  void Lift(size_t at) {
    Unlink(at);
    Unlink(entries_[at].match);
    if (operations_[entries_[at].operation].return_ns != kNever) --required_;
  }
  void Unlift(size_t at) {
    if (operations_[entries_[at].operation].return_ns != kNever) ++required_;
    Relink(entries_[at].match);
    Relink(at);
  }

  const std::vector<SearchOperation>& operations_;
  const uint64_t steps_max_;
  std::vector<Visited> marks_;
  std::vector<Entry> entries_;
  std::vector<Choice> path_;
  std::unordered_set<Visited, VisitedHash> visited_;
  size_t required_ = 0;  // Not linearized yet of those that returned.
  size_t deepest_ = 0;
  uint64_t previous_state_ = 0;
  Visited previous_set_;
  SearchResult result_;
};

}  // namespace

SearchResult SearchLinearization(const std::vector<SearchOperation>& operations, uint64_t steps_max) {
  return Search(operations, steps_max).Run();
}

}  // namespace keyway::sim
