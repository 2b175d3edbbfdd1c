// SPDX-License-Identifier: Apache-2.0
//
// Who a certificate is, and whether to believe it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "keyway/tls.hpp"
#include "options.h"

namespace keyway::auth_mtls {

struct Verdict {
  bool is_accepted = false;
  std::string principal;      // If accepted.
  int64_t valid_until_s = 0;  // If accepted: the earliest end of a certificate of the chain shown.
  tls::Refusal refusal = tls::Refusal::kOther;
  std::string text;  // If refused: "revoked: certificate CN=alice, serial 1A".
};

// Judges a certificate at the time `now_s`.
//
// store     roots and revocation lists; its users are serialized by the caller.
// leaf      DER. chain: the rest of what was shown, DER after DER.
// is_peer   a member: usable on both ends of a connection; its principal is the CN, else a SAN. A client
//           is named by `identity`, and refused without such a name.
Verdict Judge(X509_STORE* store, std::string_view leaf, std::string_view chain, bool is_peer,
              IdentityKind identity, int64_t now_s);

}  // namespace keyway::auth_mtls
