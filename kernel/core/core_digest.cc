// SPDX-License-Identifier: Apache-2.0
//
// The state digest. Three nets, each finer than the one before:
//
//   read     a record that comes from the engine must have the checksum that the index has for it
//            (core_reads.cc); whoever reads a changed one stops the node instead of answering
//   scrub    the engine's tables, read in full, must add up to the digest that their last batch brought
//            (also at each start, and at the end of a snapshot)
//   compare  the leader proposes a mark; at its index every member takes its digest and reports it. Where
//            they differ, the leader proposes as verdict what a majority of the voters has, and a member
//            that has something else, the leader among them, fences itself for good
//
// A compaction removes old records in the background, so a digest is final only when none is under way.
// What it removes does not depend on what is written meanwhile: the digest at the mark is that taken there
// less what the compaction, applied before the mark, has removed since. A second one voids the mark.
#include <algorithm>

#include "kernel/core/core.h"
#include "keyway/crc32c.h"

namespace keyway::core {
namespace {

constexpr size_t kMarksMax = 4;
// A scrub may take a fiftieth of a reader thread's time.
constexpr uint64_t kScrubRestFactor = 50;

void AddMembers(const Membership& membership, StateDigest* digest) {
  char key[8];
  WriteBigEndian64(key, 0);
  digest->Add(kTableMembers, {key, 8}, membership.EncodeCluster());
  for (const auto& [id, member] : membership.members()) {
    WriteBigEndian64(key, id);
    digest->Add(kTableMembers, {key, 8}, EncodeMember(member));
  }
}

// What a scrub found.
struct Scrub {
  Applied applied;
  uint64_t digest = 0;
  bool is_partial = false;  // Nothing applied yet, or a snapshot is being installed.
  std::string error;
};

// [read] Reads the replicated tables in full, through one view.
void ReadAll(const CoreDeps& deps, Scrub* out) {
  kw_error failure{};
  failure.size = sizeof failure;
  kw_kv_view* view = nullptr;
  if (deps.store->view_open(deps.store_plugin, &view, &failure) != KW_OK) {
    out->error = failure.text;
    return;
  }
  const kw_slice keys[] = {ToSlice(kMetaApplied), ToSlice(kMetaInstalling)};
  kw_slice values[2] = {};
  if (deps.store->get(deps.store_plugin, view, kTableMeta, keys, 2, values, &failure) != KW_OK) {
    out->error = failure.text;
  } else if (values[0].ptr == nullptr || values[1].ptr != nullptr) {
    out->is_partial = true;
  } else if (std::optional<Applied> applied = DecodeApplied(ToView(values[0])); applied.has_value()) {
    out->applied = *applied;
    StateDigest digest;
    for (uint32_t table : {kTableLeases, kTableMembers, kTableRevisions}) {
      ScanView(deps, view, table, &out->error, [&](std::string_view key, std::string_view value) {
        digest.Add(table, key, value);
        return true;
      });
      if (!out->error.empty()) break;
    }
    out->digest = digest.value();
  } else {
    out->error = "the applied index cannot be decoded";
  }
  deps.store->view_close(deps.store_plugin, view);
}

}  // namespace

uint64_t Core::DigestOf(const Membership& membership) const {
  StateDigest digest = digest_;
  AddMembers(membership, &digest);
  return digest.value();
}

// ---- marks ---------------------------------------------------------------------------------------------

void Core::ProposeMark() {
  if (config_.digest_interval_ms == 0 || raft_->role() != raft::Role::kLeader) return;
  if (!raft_->committed_in_term() || raft_->transferring()) return;
  if (now_ms() < mark_proposed_ms_ + config_.digest_interval_ms) return;
  mark_proposed_ms_ = now_ms();
  FlushProposals();
  EncodeDigestMarkProposal(&batch_);
  FlushProposals();
}

void Core::TakeDigest(uint64_t index) {
  CollectChanges();  // Of the proposals before it in the same entry.
  Mark& mark = marks_.emplace_back();
  mark.index = index;
  mark.digest = DigestOf(membership_);
  mark.compactions = compactions_applied_;
  mark.removed = removed_digest_.value();
  if (marks_.size() > kMarksMax) marks_.pop_front();
  round_ = {.mark = index};
  StartScrub();
}

// Completes and reports the marks whose compaction is done.
void Core::FinishMarks() {
  if (marks_.empty() || failed_ || !IsCompacted()) return;
  std::erase_if(marks_,
                [&](const Mark& mark) { return !mark.is_final && mark.compactions != compactions_applied_; });
  for (Mark& mark : marks_) {
    if (mark.is_final) continue;
    mark.is_final = true;
    mark.digest += removed_digest_.value() - mark.removed;
    if (mark.verdict.has_value()) {
      return ApplyVerdict(DigestVerdict(*mark.verdict));
    }
    if (raft_->role() == raft::Role::kLeader) {
      CountReport(identity_.member_id, mark.index, mark.digest);
    } else if (raft_->leader() != 0) {
      std::string head = Frame(FrameKind::kDigestReport, raft_->leader());
      PutFixed64(&head, mark.index);
      PutFixed64(&head, mark.digest);
      SendFrame(raft_->leader(), KW_LANE_CONTROL, head);
    }
  }
}

// ---- the leader compares -------------------------------------------------------------------------------

void Core::OnDigestReport(uint64_t from, Reader* reader) {
  const uint64_t mark = reader->Fixed64();
  const uint64_t digest = reader->Fixed64();
  if (reader->ok() && raft_->role() == raft::Role::kLeader) CountReport(from, mark, digest);
}

void Core::CountReport(uint64_t from, uint64_t mark, uint64_t digest) {
  if (mark != round_.mark || round_.is_judged || membership_.Find(from) == nullptr) return;
  round_.digests[from] = digest;
  const std::vector<raft::NodeId>& voters = raft_->configuration().voters;
  std::map<uint64_t, size_t> votes;
  size_t reported = 0;
  for (raft::NodeId voter : voters) {
    auto at = round_.digests.find(voter);
    if (at == round_.digests.end()) continue;
    ++votes[at->second];
    ++reported;
  }
  const auto most = std::max_element(votes.begin(), votes.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  const bool agreed = most != votes.end() && most->second > voters.size() / 2;
  const bool differs = std::any_of(round_.digests.begin(), round_.digests.end(), [&](const auto& report) {
    return report.second != round_.digests.begin()->second;
  });
  if (!differs || (!agreed && reported < voters.size())) return;
  round_.is_judged = true;
  for (const auto& [member, found] : round_.digests) {
    Log(deps_.logger, KW_LOG_ERROR, "state_digests_differ",
        {{"index", mark}, {"member", HexId(member)}, {"digest", HexId(found)}});
  }
  FlushProposals();
  EncodeDigestVerdictProposal({mark, agreed, agreed ? most->first : 0}, &batch_);
  FlushProposals();
}

void Core::ApplyVerdict(const DigestVerdict& verdict) {
  for (Mark& mark : marks_) {
    if (mark.index != verdict.mark) continue;
    if (!mark.is_final) {
      mark.verdict = verdict;
    } else if (!verdict.agreed) {
      Fence("the members' states differ at index " + std::to_string(mark.index) +
            ", and no majority has the same one. This member, on " + config_.store_name +
            ", has the digest " + HexId(mark.digest) + ". Restore the cluster from a backup");
    } else if (mark.digest != verdict.digest) {
      Fence("its state differs from that of the majority at index " + std::to_string(mark.index) +
            ": the digest is " + HexId(mark.digest) + ", theirs " + HexId(verdict.digest) + " (" +
            config_.store_name + ")");
    }
    return;
  }
}

// Stops this member, and keeps it from starting again: what it holds is not to be trusted.
void Core::Fence(std::string reason) {
  Fatal("this member fences itself: " + reason);
  auto batch = std::make_shared<StoreBatch>();
  batch->Put(kTableMeta, kMetaFenced, SharedBytes::Copy(reason));
  OnLane(
      Lane::kStore,
      [this, batch] {
        std::string error;
        batch->WriteTo(deps_.store_plugin, deps_.store, &error);
      },
      [] {});
}

// ---- scrub ---------------------------------------------------------------------------------------------

void Core::StartScrub() {
  if (scrubbing_ || now_ms() < scrub_not_before_ms_) return;
  scrubbing_ = true;
  auto scrub = std::make_shared<Scrub>();
  OnLane(
      Lane::kRead, [this, scrub] { ReadAll(deps_, scrub.get()); },
      [this, scrub, started_ms = now_ms()] {
        scrubbing_ = false;
        scrub_not_before_ms_ = now_ms() + (now_ms() - started_ms) * kScrubRestFactor;
        if (!scrub->error.empty()) return Fatal(config_.store_name + " cannot be read: " + scrub->error);
        if (scrub->is_partial || scrub->digest == scrub->applied.digest) return;
        Fatal("this member fences itself: " + config_.store_name +
              " does not hold what was applied up to index " + std::to_string(scrub->applied.index) +
              ": the digest of its contents is " + HexId(scrub->digest) + ", it should be " +
              HexId(scrub->applied.digest));
      });
}

}  // namespace keyway::core
