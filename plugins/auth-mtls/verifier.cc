// SPDX-License-Identifier: Apache-2.0
//
// Chains, purposes, times, lists; then the name.
#include "verifier.h"

#include <algorithm>

#include "keyway/authenticator.h"
#include "material.h"

namespace keyway::auth_mtls {
namespace {

constexpr size_t kNameBytesMax = sizeof(kw_principal::name);

using StackPtr =
    std::unique_ptr<STACK_OF(X509),
                    decltype([](STACK_OF(X509) * stack) { sk_X509_pop_free(stack, X509_free); })>;
using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, tls::Deleter<X509_STORE_CTX_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, tls::Deleter<GENERAL_NAMES_free>>;

tls::X509Ptr TakeDer(std::string_view* der) {
  const auto* at = reinterpret_cast<const unsigned char*>(der->data());
  const auto* const begin = at;
  tls::X509Ptr certificate(d2i_X509(nullptr, &at, static_cast<long>(der->size())));
  if (certificate != nullptr) der->remove_prefix(static_cast<size_t>(at - begin));
  return certificate;
}

Verdict Refuse(tls::Refusal refusal, const std::string& text) {
  ERR_clear_error();
  Verdict verdict;
  verdict.refusal = refusal;
  verdict.text = std::string(tls::Name(refusal)) + ": " + text;
  return verdict;
}

// A name with a control character or a NUL inside is none: others would read another name in it.
bool IsPlain(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax &&
         std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

std::string CommonName(X509* leaf) {
  X509_NAME* const subject = X509_get_subject_name(leaf);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return "";
  unsigned char* text = nullptr;
  const int bytes = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (bytes < 0) return "";
  const std::string name(reinterpret_cast<char*>(text), static_cast<size_t>(bytes));
  OPENSSL_free(text);
  return name;
}

// The first SAN of the type, a GEN_ number.
std::string AlternativeName(X509* leaf, int type) {
  const NamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(leaf, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != type) continue;
    const ASN1_STRING* const text = type == GEN_DNS ? name->d.dNSName : name->d.uniformResourceIdentifier;
    return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
            static_cast<size_t>(ASN1_STRING_length(text))};
  }
  return "";
}

bool NameOf(X509* leaf, bool is_peer, IdentityKind identity, std::string* name, std::string* why) {
  if (is_peer) {
    // Members are known by their addresses, which the transport compares; this is for the log.
    *name = CommonName(leaf);
    if (!IsPlain(*name)) *name = AlternativeName(leaf, GEN_DNS);
    if (!IsPlain(*name)) name->clear();
    return true;
  }
  switch (identity) {
    case IdentityKind::kCommonName:
      *name = CommonName(leaf);
      *why = "the certificate has no usable CN";
      return IsPlain(*name);
    case IdentityKind::kDnsName:
      *name = AlternativeName(leaf, GEN_DNS);
      *why = "the certificate has no usable DNS SAN";
      return IsPlain(*name);
    case IdentityKind::kUri:
      *name = AlternativeName(leaf, GEN_URI);
      *why = "the certificate has no usable URI SAN";
      return IsPlain(*name);
  }
  return false;
}

}  // namespace

Verdict Judge(X509_STORE* store, std::string_view leaf_der, std::string_view chain_der, bool is_peer,
              IdentityKind identity, int64_t now_s) {
  ERR_clear_error();
  const tls::X509Ptr leaf = TakeDer(&leaf_der);
  if (leaf == nullptr || !leaf_der.empty()) {
    return Refuse(tls::Refusal::kBadCertificate, "the certificate cannot be decoded");
  }
  Verdict verdict;
  verdict.valid_until_s = SecondsOf(X509_get0_notAfter(leaf.get()));
  const StackPtr chain(sk_X509_new_null());
  while (!chain_der.empty() && sk_X509_num(chain.get()) < tls::kChainLengthMax) {
    tls::X509Ptr next = TakeDer(&chain_der);
    if (next == nullptr) return Refuse(tls::Refusal::kBadCertificate, "the chain cannot be decoded");
    verdict.valid_until_s = std::min(verdict.valid_until_s, SecondsOf(X509_get0_notAfter(next.get())));
    sk_X509_push(chain.get(), next.release());
  }
  const std::string description = tls::Describe(leaf.get());
  if (store == nullptr)
    return Refuse(tls::Refusal::kUnknownAuthority, description + ": no roots are configured");
  const StoreContextPtr context(X509_STORE_CTX_new());
  if (context == nullptr || X509_STORE_CTX_init(context.get(), store, leaf.get(), chain.get()) != 1) {
    return Refuse(tls::Refusal::kOther, description + ": " + tls::LastError());
  }
  X509_STORE_CTX_set_purpose(context.get(), X509_PURPOSE_SSL_CLIENT);
  X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(context.get()), static_cast<time_t>(now_s));
  X509_STORE_CTX_set_verify_cb(context.get(), &tls::VerifyCallback);
  if (X509_verify_cert(context.get()) != 1) {
    const int code = X509_STORE_CTX_get_error(context.get());
    return Refuse(tls::RefusalOfVerify(code), description + ": " + X509_verify_cert_error_string(code));
  }
  if (is_peer && X509_check_purpose(leaf.get(), X509_PURPOSE_SSL_SERVER, 0) != 1) {
    return Refuse(tls::Refusal::kBadCertificate, description + ": not usable as a server certificate");
  }
  std::string why;
  if (!NameOf(leaf.get(), is_peer, identity, &verdict.principal, &why)) {
    return Refuse(tls::Refusal::kNoIdentity, description + ": " + why);
  }
  ERR_clear_error();
  verdict.is_accepted = true;
  return verdict;
}

}  // namespace keyway::auth_mtls
