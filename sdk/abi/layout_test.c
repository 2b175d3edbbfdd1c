/* SPDX-License-Identifier: Apache-2.0
 *
 * The layout of every public struct on 64-bit Linux. Written by make_layout_test.py, reviewed
 * as a diff: offsets never change, structs grow only at the end. */
/* clang-format off */
#include <keyway/abi.h>
#include <keyway/authenticator.h>
#include <keyway/crc32c.h>
#include <keyway/detail.h>
#include <keyway/host.h>
#include <keyway/kernel.h>
#include <keyway/kv_store.h>
#include <keyway/log_store.h>
#include <keyway/observer.h>
#include <keyway/transport.h>

#define LAYOUT(type, field, offset, bytes)                              \
  _Static_assert(offsetof(type, field) == (offset), #type "." #field);  \
  _Static_assert(sizeof(((type *)0)->field) == (bytes), #type "." #field " size")
#define SIZE(type, bytes, align)                              \
  _Static_assert(sizeof(type) == (bytes), #type " size");     \
  _Static_assert(_Alignof(type) == (align), #type " align")

/* ---- abi.h */

SIZE(kw_slice, 16, 8);
LAYOUT(kw_slice, ptr, 0, 8);
LAYOUT(kw_slice, len, 8, 8);

SIZE(kw_error, 256, 4);
LAYOUT(kw_error, size, 0, 4);
LAYOUT(kw_error, code, 4, 4);
LAYOUT(kw_error, detail, 8, 4);
LAYOUT(kw_error, reserved, 12, 4);
LAYOUT(kw_error, text, 16, 240);

SIZE(kw_writer, 16, 8);
LAYOUT(kw_writer, self, 0, 8);
LAYOUT(kw_writer, write, 8, 8);

SIZE(kw_completion, 32, 8);
LAYOUT(kw_completion, done, 0, 8);
LAYOUT(kw_completion, ctx, 8, 8);
LAYOUT(kw_completion, callee, 16, 16);

SIZE(kw_config_field, 32, 8);
LAYOUT(kw_config_field, key, 0, 8);
LAYOUT(kw_config_field, type, 8, 8);
LAYOUT(kw_config_field, fallback, 16, 8);
LAYOUT(kw_config_field, doc, 24, 8);

SIZE(kw_config_item, 32, 8);
LAYOUT(kw_config_item, key, 0, 8);
LAYOUT(kw_config_item, value, 8, 16);
LAYOUT(kw_config_item, line, 24, 4);
LAYOUT(kw_config_item, reserved, 28, 4);

SIZE(kw_host, 32, 8);
LAYOUT(kw_host, size, 0, 4);
LAYOUT(kw_host, abi_major, 4, 2);
LAYOUT(kw_host, abi_minor, 6, 2);
LAYOUT(kw_host, self, 8, 8);
LAYOUT(kw_host, product, 16, 8);
LAYOUT(kw_host, get, 24, 8);

SIZE(kw_plugin, 48, 8);
LAYOUT(kw_plugin, size, 0, 4);
LAYOUT(kw_plugin, reserved, 4, 4);
LAYOUT(kw_plugin, self, 8, 8);
LAYOUT(kw_plugin, start, 16, 8);
LAYOUT(kw_plugin, stop, 24, 8);
LAYOUT(kw_plugin, destroy, 32, 8);
LAYOUT(kw_plugin, get, 40, 8);

SIZE(kw_descriptor, 80, 8);
LAYOUT(kw_descriptor, size, 0, 4);
LAYOUT(kw_descriptor, abi_major, 4, 2);
LAYOUT(kw_descriptor, abi_minor, 6, 2);
LAYOUT(kw_descriptor, id, 8, 8);
LAYOUT(kw_descriptor, version, 16, 8);
LAYOUT(kw_descriptor, license, 24, 8);
LAYOUT(kw_descriptor, stability, 32, 8);
LAYOUT(kw_descriptor, provides, 40, 8);
LAYOUT(kw_descriptor, needs, 48, 8);
LAYOUT(kw_descriptor, fields, 56, 8);
LAYOUT(kw_descriptor, field_count, 64, 8);
LAYOUT(kw_descriptor, create, 72, 8);

SIZE(kw_entry, 24, 8);
LAYOUT(kw_entry, size, 0, 4);
LAYOUT(kw_entry, abi_major, 4, 2);
LAYOUT(kw_entry, abi_minor, 6, 2);
LAYOUT(kw_entry, plugins, 8, 8);
LAYOUT(kw_entry, plugin_count, 16, 8);

/* ---- authenticator.h */

SIZE(kw_evidence, 72, 8);
LAYOUT(kw_evidence, size, 0, 4);
LAYOUT(kw_evidence, kind, 4, 4);
LAYOUT(kw_evidence, role, 8, 16);
LAYOUT(kw_evidence, primary, 24, 16);
LAYOUT(kw_evidence, secondary, 40, 16);
LAYOUT(kw_evidence, address, 56, 16);

SIZE(kw_principal, 256, 4);
LAYOUT(kw_principal, size, 0, 4);
LAYOUT(kw_principal, len, 4, 4);
LAYOUT(kw_principal, name, 8, 248);

SIZE(kw_tls, 120, 8);
LAYOUT(kw_tls, size, 0, 4);
LAYOUT(kw_tls, flags, 4, 4);
LAYOUT(kw_tls, generation, 8, 8);
LAYOUT(kw_tls, chain, 16, 16);
LAYOUT(kw_tls, key, 32, 16);
LAYOUT(kw_tls, roots, 48, 16);
LAYOUT(kw_tls, crl, 64, 16);
LAYOUT(kw_tls, min_version, 80, 16);
LAYOUT(kw_tls, ciphers, 96, 16);
LAYOUT(kw_tls, release, 112, 8);

SIZE(kw_authenticator, 24, 8);
LAYOUT(kw_authenticator, size, 0, 4);
LAYOUT(kw_authenticator, caps, 4, 4);
LAYOUT(kw_authenticator, authenticate, 8, 8);
LAYOUT(kw_authenticator, tls, 16, 8);

/* ---- host.h */

SIZE(kw_field, 24, 8);
LAYOUT(kw_field, key, 0, 8);
LAYOUT(kw_field, value, 8, 16);

SIZE(kw_log, 16, 8);
LAYOUT(kw_log, size, 0, 4);
LAYOUT(kw_log, level_min, 4, 4);
LAYOUT(kw_log, write, 8, 8);

SIZE(kw_clock, 40, 8);
LAYOUT(kw_clock, size, 0, 4);
LAYOUT(kw_clock, reserved, 4, 4);
LAYOUT(kw_clock, mono_ns, 8, 8);
LAYOUT(kw_clock, wall_ns, 16, 8);
LAYOUT(kw_clock, after, 24, 8);
LAYOUT(kw_clock, cancel, 32, 8);

SIZE(kw_metrics, 24, 8);
LAYOUT(kw_metrics, size, 0, 4);
LAYOUT(kw_metrics, reserved, 4, 4);
LAYOUT(kw_metrics, cell, 8, 8);
LAYOUT(kw_metrics, histogram, 16, 8);

SIZE(kw_exposition, 16, 8);
LAYOUT(kw_exposition, size, 0, 4);
LAYOUT(kw_exposition, reserved, 4, 4);
LAYOUT(kw_exposition, render, 8, 8);

SIZE(kw_identity, 24, 8);
LAYOUT(kw_identity, size, 0, 4);
LAYOUT(kw_identity, reserved, 4, 4);
LAYOUT(kw_identity, authenticate, 8, 8);
LAYOUT(kw_identity, tls, 16, 8);

/* ---- kernel.h */

SIZE(kw_request, 80, 8);
LAYOUT(kw_request, size, 0, 4);
LAYOUT(kw_request, kind, 4, 2);
LAYOUT(kw_request, flags, 6, 2);
LAYOUT(kw_request, deadline_ns, 8, 8);
LAYOUT(kw_request, principal, 16, 16);
LAYOUT(kw_request, done, 32, 8);
LAYOUT(kw_request, ctx, 40, 8);
LAYOUT(kw_request, kernel, 48, 32);

SIZE(kw_range, 88, 8);
LAYOUT(kw_range, key, 0, 16);
LAYOUT(kw_range, end, 16, 16);
LAYOUT(kw_range, revision, 32, 8);
LAYOUT(kw_range, limit, 40, 8);
LAYOUT(kw_range, mod_min, 48, 8);
LAYOUT(kw_range, mod_max, 56, 8);
LAYOUT(kw_range, create_min, 64, 8);
LAYOUT(kw_range, create_max, 72, 8);
LAYOUT(kw_range, sort_target, 80, 1);
LAYOUT(kw_range, sort_order, 81, 1);
LAYOUT(kw_range, flags, 82, 1);
LAYOUT(kw_range, reserved, 83, 5);

SIZE(kw_range_request, 168, 8);
LAYOUT(kw_range_request, req, 0, 80);
LAYOUT(kw_range_request, range, 80, 88);

SIZE(kw_cmp, 64, 8);
LAYOUT(kw_cmp, key, 0, 16);
LAYOUT(kw_cmp, end, 16, 16);
LAYOUT(kw_cmp, value, 32, 16);
LAYOUT(kw_cmp, number, 48, 8);
LAYOUT(kw_cmp, target, 56, 4);
LAYOUT(kw_cmp, relation, 60, 4);

SIZE(kw_op, 80, 8);
LAYOUT(kw_op, kind, 0, 4);
LAYOUT(kw_op, flags, 4, 4);
LAYOUT(kw_op, key, 8, 16);
LAYOUT(kw_op, end, 24, 16);
LAYOUT(kw_op, value, 40, 16);
LAYOUT(kw_op, lease, 56, 8);
LAYOUT(kw_op, range, 64, 8);
LAYOUT(kw_op, txn, 72, 8);

SIZE(kw_txn, 48, 8);
LAYOUT(kw_txn, cmps, 0, 8);
LAYOUT(kw_txn, then_ops, 8, 8);
LAYOUT(kw_txn, else_ops, 16, 8);
LAYOUT(kw_txn, cmp_count, 24, 8);
LAYOUT(kw_txn, then_count, 32, 8);
LAYOUT(kw_txn, else_count, 40, 8);

SIZE(kw_txn_request, 136, 8);
LAYOUT(kw_txn_request, req, 0, 80);
LAYOUT(kw_txn_request, txn_flags, 80, 8);
LAYOUT(kw_txn_request, txn, 88, 48);

SIZE(kw_compact_request, 88, 8);
LAYOUT(kw_compact_request, req, 0, 80);
LAYOUT(kw_compact_request, revision, 80, 8);

SIZE(kw_lease_request, 104, 8);
LAYOUT(kw_lease_request, req, 0, 80);
LAYOUT(kw_lease_request, id, 80, 8);
LAYOUT(kw_lease_request, ttl_s, 88, 8);
LAYOUT(kw_lease_request, lease_flags, 96, 8);

SIZE(kw_member_request, 112, 8);
LAYOUT(kw_member_request, req, 0, 80);
LAYOUT(kw_member_request, id, 80, 8);
LAYOUT(kw_member_request, peer_urls, 88, 8);
LAYOUT(kw_member_request, peer_url_count, 96, 8);
LAYOUT(kw_member_request, is_learner, 104, 8);

SIZE(kw_op_result, 48, 8);
LAYOUT(kw_op_result, kind, 0, 4);
LAYOUT(kw_op_result, flags, 4, 4);
LAYOUT(kw_op_result, count, 8, 8);
LAYOUT(kw_op_result, records, 16, 8);
LAYOUT(kw_op_result, record_count, 24, 8);
LAYOUT(kw_op_result, nested, 32, 8);
LAYOUT(kw_op_result, nested_count, 40, 8);

SIZE(kw_member, 64, 8);
LAYOUT(kw_member, id, 0, 8);
LAYOUT(kw_member, name, 8, 16);
LAYOUT(kw_member, peer_urls, 24, 8);
LAYOUT(kw_member, client_urls, 32, 8);
LAYOUT(kw_member, peer_url_count, 40, 8);
LAYOUT(kw_member, client_url_count, 48, 8);
LAYOUT(kw_member, is_learner, 56, 8);

SIZE(kw_lease_info, 56, 8);
LAYOUT(kw_lease_info, id, 0, 8);
LAYOUT(kw_lease_info, ttl_s, 8, 8);
LAYOUT(kw_lease_info, granted_ttl_s, 16, 8);
LAYOUT(kw_lease_info, keys, 24, 8);
LAYOUT(kw_lease_info, key_count, 32, 8);
LAYOUT(kw_lease_info, ids, 40, 8);
LAYOUT(kw_lease_info, id_count, 48, 8);

SIZE(kw_status, 88, 8);
LAYOUT(kw_status, size, 0, 4);
LAYOUT(kw_status, reserved, 4, 4);
LAYOUT(kw_status, leader, 8, 8);
LAYOUT(kw_status, raft_index, 16, 8);
LAYOUT(kw_status, raft_term, 24, 8);
LAYOUT(kw_status, raft_applied_index, 32, 8);
LAYOUT(kw_status, db_bytes, 40, 8);
LAYOUT(kw_status, db_bytes_in_use, 48, 8);
LAYOUT(kw_status, db_bytes_quota, 56, 8);
LAYOUT(kw_status, is_learner, 64, 8);
LAYOUT(kw_status, errors, 72, 8);
LAYOUT(kw_status, error_count, 80, 8);

SIZE(kw_hash, 24, 8);
LAYOUT(kw_hash, hash, 0, 4);
LAYOUT(kw_hash, reserved, 4, 4);
LAYOUT(kw_hash, compact_revision, 8, 8);
LAYOUT(kw_hash, hash_revision, 16, 8);

SIZE(kw_reply, 112, 8);
LAYOUT(kw_reply, size, 0, 4);
LAYOUT(kw_reply, succeeded, 4, 4);
LAYOUT(kw_reply, cluster_id, 8, 8);
LAYOUT(kw_reply, member_id, 16, 8);
LAYOUT(kw_reply, raft_term, 24, 8);
LAYOUT(kw_reply, revision, 32, 8);
LAYOUT(kw_reply, results, 40, 8);
LAYOUT(kw_reply, result_count, 48, 8);
LAYOUT(kw_reply, members, 56, 8);
LAYOUT(kw_reply, member_count, 64, 8);
LAYOUT(kw_reply, new_member_id, 72, 8);
LAYOUT(kw_reply, lease, 80, 8);
LAYOUT(kw_reply, status, 88, 8);
LAYOUT(kw_reply, hash, 96, 8);
LAYOUT(kw_reply, release, 104, 8);

SIZE(kw_event, 48, 8);
LAYOUT(kw_event, kind, 0, 4);
LAYOUT(kw_event, reserved, 4, 4);
LAYOUT(kw_event, mod_revision, 8, 8);
LAYOUT(kw_event, record, 16, 16);
LAYOUT(kw_event, prev, 32, 16);

SIZE(kw_watch_batch, 64, 8);
LAYOUT(kw_watch_batch, kind, 0, 4);
LAYOUT(kw_watch_batch, code, 4, 4);
LAYOUT(kw_watch_batch, detail, 8, 4);
LAYOUT(kw_watch_batch, reserved, 12, 4);
LAYOUT(kw_watch_batch, watch_ctx, 16, 8);
LAYOUT(kw_watch_batch, revision, 24, 8);
LAYOUT(kw_watch_batch, compact_revision, 32, 8);
LAYOUT(kw_watch_batch, events, 40, 8);
LAYOUT(kw_watch_batch, event_count, 48, 8);
LAYOUT(kw_watch_batch, credit_bytes, 56, 8);

SIZE(kw_delivery, 64, 8);
LAYOUT(kw_delivery, size, 0, 4);
LAYOUT(kw_delivery, reserved, 4, 4);
LAYOUT(kw_delivery, cluster_id, 8, 8);
LAYOUT(kw_delivery, member_id, 16, 8);
LAYOUT(kw_delivery, raft_term, 24, 8);
LAYOUT(kw_delivery, batches, 32, 8);
LAYOUT(kw_delivery, batch_count, 40, 8);
LAYOUT(kw_delivery, next, 48, 8);
LAYOUT(kw_delivery, release, 56, 8);

SIZE(kw_watch_sink, 16, 8);
LAYOUT(kw_watch_sink, self, 0, 8);
LAYOUT(kw_watch_sink, deliver, 8, 8);

SIZE(kw_watch, 88, 8);
LAYOUT(kw_watch, size, 0, 4);
LAYOUT(kw_watch, flags, 4, 4);
LAYOUT(kw_watch, principal, 8, 16);
LAYOUT(kw_watch, key, 24, 16);
LAYOUT(kw_watch, end, 40, 16);
LAYOUT(kw_watch, start_revision, 56, 8);
LAYOUT(kw_watch, credit_bytes, 64, 8);
LAYOUT(kw_watch, sink, 72, 8);
LAYOUT(kw_watch, ctx, 80, 8);

SIZE(kw_node_state, 72, 8);
LAYOUT(kw_node_state, size, 0, 4);
LAYOUT(kw_node_state, reserved, 4, 4);
LAYOUT(kw_node_state, cluster_id, 8, 8);
LAYOUT(kw_node_state, member_id, 16, 8);
LAYOUT(kw_node_state, leader_id, 24, 8);
LAYOUT(kw_node_state, raft_term, 32, 8);
LAYOUT(kw_node_state, revision, 40, 8);
LAYOUT(kw_node_state, is_learner, 48, 8);
LAYOUT(kw_node_state, leader_lost_ns, 56, 8);
LAYOUT(kw_node_state, serving, 64, 8);

SIZE(kw_kernel, 64, 8);
LAYOUT(kw_kernel, size, 0, 4);
LAYOUT(kw_kernel, reserved, 4, 4);
LAYOUT(kw_kernel, submit, 8, 8);
LAYOUT(kw_kernel, watch_open, 16, 8);
LAYOUT(kw_kernel, watch_credit, 24, 8);
LAYOUT(kw_kernel, watch_progress, 32, 8);
LAYOUT(kw_kernel, watch_close, 40, 8);
LAYOUT(kw_kernel, state, 48, 8);
LAYOUT(kw_kernel, plugins, 56, 8);

/* ---- kv_store.h */

SIZE(kw_kv_op, 40, 8);
LAYOUT(kw_kv_op, kind, 0, 4);
LAYOUT(kw_kv_op, table, 4, 4);
LAYOUT(kw_kv_op, key, 8, 16);
LAYOUT(kw_kv_op, value, 24, 16);

SIZE(kw_kv_pair, 32, 8);
LAYOUT(kw_kv_pair, key, 0, 16);
LAYOUT(kw_kv_pair, value, 16, 16);

SIZE(kw_kv_stats, 32, 8);
LAYOUT(kw_kv_stats, size, 0, 4);
LAYOUT(kw_kv_stats, reserved, 4, 4);
LAYOUT(kw_kv_stats, disk_bytes, 8, 8);
LAYOUT(kw_kv_stats, live_bytes, 16, 8);
LAYOUT(kw_kv_stats, views_open, 24, 8);

SIZE(kw_kv_store, 112, 8);
LAYOUT(kw_kv_store, size, 0, 4);
LAYOUT(kw_kv_store, caps, 4, 4);
LAYOUT(kw_kv_store, key_bytes_max, 8, 4);
LAYOUT(kw_kv_store, reserved, 12, 4);
LAYOUT(kw_kv_store, value_bytes_max, 16, 8);
LAYOUT(kw_kv_store, write, 24, 8);
LAYOUT(kw_kv_store, sync, 32, 8);
LAYOUT(kw_kv_store, view_open, 40, 8);
LAYOUT(kw_kv_store, view_close, 48, 8);
LAYOUT(kw_kv_store, get, 56, 8);
LAYOUT(kw_kv_store, cursor_open, 64, 8);
LAYOUT(kw_kv_store, cursor_next, 72, 8);
LAYOUT(kw_kv_store, cursor_close, 80, 8);
LAYOUT(kw_kv_store, stats, 88, 8);
LAYOUT(kw_kv_store, checkpoint, 96, 8);
LAYOUT(kw_kv_store, reclaim, 104, 8);

/* ---- log_store.h */

SIZE(kw_log_entry, 40, 8);
LAYOUT(kw_log_entry, index, 0, 8);
LAYOUT(kw_log_entry, term, 8, 8);
LAYOUT(kw_log_entry, kind, 16, 4);
LAYOUT(kw_log_entry, crc32c, 20, 4);
LAYOUT(kw_log_entry, data, 24, 16);

SIZE(kw_hard_state, 24, 8);
LAYOUT(kw_hard_state, term, 0, 8);
LAYOUT(kw_hard_state, vote, 8, 8);
LAYOUT(kw_hard_state, commit, 16, 8);

SIZE(kw_log_bounds, 24, 8);
LAYOUT(kw_log_bounds, first, 0, 8);
LAYOUT(kw_log_bounds, last, 8, 8);
LAYOUT(kw_log_bounds, base_term, 16, 8);

SIZE(kw_log_salvage, 72, 8);
LAYOUT(kw_log_salvage, size, 0, 4);
LAYOUT(kw_log_salvage, reserved, 4, 4);
LAYOUT(kw_log_salvage, hard_state, 8, 24);
LAYOUT(kw_log_salvage, last, 32, 8);
LAYOUT(kw_log_salvage, last_term, 40, 8);
LAYOUT(kw_log_salvage, bounds, 48, 24);

SIZE(kw_log_batch, 32, 8);
LAYOUT(kw_log_batch, size, 0, 4);
LAYOUT(kw_log_batch, reserved, 4, 4);
LAYOUT(kw_log_batch, entries, 8, 8);
LAYOUT(kw_log_batch, entry_count, 16, 8);
LAYOUT(kw_log_batch, release, 24, 8);

SIZE(kw_log_store, 72, 8);
LAYOUT(kw_log_store, size, 0, 4);
LAYOUT(kw_log_store, caps, 4, 4);
LAYOUT(kw_log_store, recover, 8, 8);
LAYOUT(kw_log_store, append, 16, 8);
LAYOUT(kw_log_store, read, 24, 8);
LAYOUT(kw_log_store, truncate_prefix, 32, 8);
LAYOUT(kw_log_store, reset, 40, 8);
LAYOUT(kw_log_store, try_append, 48, 8);
LAYOUT(kw_log_store, salvage, 56, 8);
LAYOUT(kw_log_store, rebuild, 64, 8);

/* ---- observer.h */

SIZE(kw_sample, 80, 8);
LAYOUT(kw_sample, name, 0, 8);
LAYOUT(kw_sample, help, 8, 8);
LAYOUT(kw_sample, labels, 16, 8);
LAYOUT(kw_sample, label_count, 24, 8);
LAYOUT(kw_sample, kind, 32, 4);
LAYOUT(kw_sample, reserved, 36, 4);
LAYOUT(kw_sample, value, 40, 8);
LAYOUT(kw_sample, bounds, 48, 8);
LAYOUT(kw_sample, buckets, 56, 8);
LAYOUT(kw_sample, bound_count, 64, 8);
LAYOUT(kw_sample, sum, 72, 8);

SIZE(kw_observer, 16, 8);
LAYOUT(kw_observer, size, 0, 4);
LAYOUT(kw_observer, caps, 4, 4);
LAYOUT(kw_observer, render, 8, 8);

SIZE(kw_samples, 16, 8);
LAYOUT(kw_samples, size, 0, 4);
LAYOUT(kw_samples, reserved, 4, 4);
LAYOUT(kw_samples, collect, 8, 8);

/* ---- transport.h */

SIZE(kw_frame, 48, 8);
LAYOUT(kw_frame, peer, 0, 8);
LAYOUT(kw_frame, lane, 8, 4);
LAYOUT(kw_frame, reserved, 12, 4);
LAYOUT(kw_frame, head, 16, 16);
LAYOUT(kw_frame, body, 32, 16);

SIZE(kw_peer, 24, 8);
LAYOUT(kw_peer, id, 0, 8);
LAYOUT(kw_peer, urls, 8, 8);
LAYOUT(kw_peer, url_count, 16, 8);

SIZE(kw_transport_sink, 32, 8);
LAYOUT(kw_transport_sink, size, 0, 4);
LAYOUT(kw_transport_sink, reserved, 4, 4);
LAYOUT(kw_transport_sink, self, 8, 8);
LAYOUT(kw_transport_sink, frames, 16, 8);
LAYOUT(kw_transport_sink, peer_state, 24, 8);

SIZE(kw_transport_stats, 32, 8);
LAYOUT(kw_transport_stats, sent_bytes, 0, 8);
LAYOUT(kw_transport_stats, received_bytes, 8, 8);
LAYOUT(kw_transport_stats, send_failures, 16, 8);
LAYOUT(kw_transport_stats, round_trip_ns, 24, 8);

SIZE(kw_transport, 48, 8);
LAYOUT(kw_transport, size, 0, 4);
LAYOUT(kw_transport, caps, 4, 4);
LAYOUT(kw_transport, frame_bytes_max, 8, 8);
LAYOUT(kw_transport, listen, 16, 8);
LAYOUT(kw_transport, set_peers, 24, 8);
LAYOUT(kw_transport, send, 32, 8);
LAYOUT(kw_transport, stats, 40, 8);
