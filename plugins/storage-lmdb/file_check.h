// SPDX-License-Identifier: Apache-2.0
//
// Checks that every page in use lies within the file and is what it should be, reading the file's
// bytes: LMDB itself ends the process on a page of the wrong kind, or by SIGBUS on a missing one.
//
// The format (LMDB 0.9, 64-bit, little-endian), as far as it is read here:
//   page     0 u64 number  10 u16 flags  12 u16 lower  14 u16 upper (overflow: 12 u32 page count)
//            16 u16 node offset, (lower - 16) / 2 of them; the nodes
//   meta     page 0 or 1, the one with the higher transaction: 16 u32 magic  40 db free list
//            88 db of tables  136 u64 last page  144 u64 transaction
//   db       0 u32 page size (of the free list's)  40 u64 root page, all ones if empty; 48 bytes
//   node     0 u16 low  2 u16 high  4 u16 flags  6 u16 key bytes  8 key, then data
//            branch: child page = low | high << 16 | flags << 32
//            leaf: data bytes = low | high << 16; flags 1: data is the u64 overflow page; 2: data is a db
#pragma once

#include <cstdint>
#include <string>

namespace keyway::storage_lmdb {

// Reads through `file`, a descriptor. Empty if all is well, else what is wrong and where.
std::string CheckFile(int file);

}  // namespace keyway::storage_lmdb
