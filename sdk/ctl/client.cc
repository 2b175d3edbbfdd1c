// SPDX-License-Identifier: Apache-2.0
#include "client.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

#include "etcd/rpc.grpc.pb.h"
#include "tls_probe.h"

namespace keyway::ctl {
namespace {

bool ReadFile(const std::string& path, std::string* out) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  *out = text.str();
  return file.good() || !out->empty();
}

std::string CodeName(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "deadline exceeded";
    case grpc::StatusCode::UNAVAILABLE:
      return "unavailable";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "not implemented by the server";
    case grpc::StatusCode::CANCELLED:
      return "cancelled";
    default:
      return "code " + std::to_string(static_cast<int>(code));
  }
}

// The last and telling part of gRPC's chains of causes.
std::string Reason(const grpc::Status& status) {
  std::string text = status.error_message();
  for (const std::string_view marker : {"last error: UNKNOWN: ", "last error: "}) {
    const size_t at = text.find(marker);
    if (at == std::string::npos) continue;
    text = text.substr(at + marker.size());
    break;
  }
  const size_t remote = text.rfind("Failed to connect to remote host: ");
  if (remote != std::string::npos) text = text.substr(remote + 34);
  const size_t detail = text.find(" {");  // Addresses and file names follow.
  if (detail != std::string::npos && detail > 0) text = text.substr(0, detail);
  return text.empty() ? CodeName(status.error_code()) : text;
}

// TLS with whoever answers.
std::shared_ptr<grpc::ChannelCredentials> UnverifiedCredentials(const grpc::SslCredentialsOptions& from) {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
  if (!from.pem_cert_chain.empty()) {
    options.set_certificate_provider(std::make_shared<grpc::experimental::StaticDataCertificateProvider>(
        std::vector<grpc::experimental::IdentityKeyCertPair>{{from.pem_private_key, from.pem_cert_chain}}));
    options.watch_identity_key_cert_pairs();
  }
  return grpc::experimental::TlsCredentials(options);
}

// What gRPC dials for an endpoint, and whether in TLS.
std::pair<std::string, bool> TargetOf(const std::string& endpoint, const Flags& flags) {
  std::string target = endpoint;
  bool is_tls = !flags.ca_file.empty() || !flags.certificate_file.empty() || flags.skips_tls_verify;
  if (target.rfind("http://", 0) == 0) {
    target = target.substr(7);
    is_tls = false;
  } else if (target.rfind("https://", 0) == 0) {
    target = target.substr(8);
    is_tls = true;
  }
  if (!target.empty() && target.back() == '/') target.pop_back();
  return {target, is_tls && target.rfind("unix:", 0) != 0};
}

// Why there is no connection: the reason of TLS if it is one, else gRPC's.
std::string Explain(const grpc::Status& status, const std::string& endpoint, const Context& context) {
  const auto [target, is_tls] = TargetOf(endpoint, context.flags);
  const int dial_ms = static_cast<int>(context.dial_timeout.count() / 1'000'000);
  std::string words;
  if (target.rfind("unix:", 0) != 0) words = ExplainTls(target, is_tls, context.flags, dial_ms);
  return words.empty() ? Reason(status) : words;
}

}  // namespace

std::shared_ptr<grpc::Channel> Client::ConnectTo(const std::string& endpoint, std::string* why) const {
  const Flags& flags = context_.flags;
  const auto [target, is_tls] = TargetOf(endpoint, flags);
  if (target.rfind("unix:", 0) != 0 && target.find(':') == std::string::npos) {
    *why = "endpoint \"" + endpoint + "\" is not of the form host:port";
    return nullptr;
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (is_tls) {
    grpc::SslCredentialsOptions options;
    for (const auto& [path, to] : {std::pair(&flags.ca_file, &options.pem_root_certs),
                                   std::pair(&flags.certificate_file, &options.pem_cert_chain),
                                   std::pair(&flags.key_file, &options.pem_private_key)}) {
      if (!path->empty() && !ReadFile(*path, to)) {
        *why = "cannot read \"" + *path + "\"";
        return nullptr;
      }
    }
    credentials = flags.skips_tls_verify ? UnverifiedCredentials(options) : grpc::SslCredentials(options);
  }
  const int dial_ms = static_cast<int>(context_.dial_timeout.count() / 1'000'000);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, std::max(dial_ms, 100));
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel(target, credentials, arguments);
  const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(dial_ms);
  grpc_connectivity_state state = channel->GetState(true);
  while (state != GRPC_CHANNEL_READY && state != GRPC_CHANNEL_TRANSIENT_FAILURE) {
    if (!channel->WaitForStateChange(state, deadline)) {
      *why = endpoint + ": no connection within " + flags.dial_timeout;
      return nullptr;
    }
    state = channel->GetState(true);
  }
  if (state == GRPC_CHANNEL_READY) return channel;
  // The state does not tell the reason; a call that fails at once does.
  grpc::ClientContext call;
  call.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
  etcdserverpb::StatusResponse ignored;
  const grpc::Status status = etcdserverpb::Maintenance::NewStub(channel)->Status(&call, {}, &ignored);
  if (status.ok()) return channel;
  *why = endpoint + ": cannot connect: " + Explain(status, endpoint, context_);
  return nullptr;
}

std::shared_ptr<grpc::Channel> Client::Connect() {
  if (channel_ != nullptr && channel_->GetState(true) == GRPC_CHANNEL_READY) return channel_;
  channel_ = nullptr;
  std::string reasons;
  for (const std::string& endpoint : context_.flags.endpoints) {
    std::string why;
    channel_ = ConnectTo(endpoint, &why);
    if (channel_ != nullptr) {
      endpoint_ = endpoint;
      return channel_;
    }
    reasons += (reasons.empty() ? "" : "; ") + why;
  }
  error_ = reasons.empty() ? "no endpoint is given" : reasons;
  return nullptr;
}

void Client::SetDeadline(grpc::ClientContext* call) const {
  call->set_deadline(
      std::chrono::system_clock::now() +
      std::chrono::duration_cast<std::chrono::system_clock::duration>(context_.command_timeout));
}

int Client::Keep(const grpc::Status& status, const std::string& endpoint) {
  if (status.ok()) return kOk;
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    error_ = endpoint + ": no answer within " + context_.flags.command_timeout;
    return kError;
  }
  const bool is_connection = status.error_code() == grpc::StatusCode::UNAVAILABLE &&
                             status.error_message().rfind("etcdserver:", 0) != 0;
  error_ = endpoint + ": " + (is_connection ? Explain(status, endpoint, context_) : Reason(status));
  return is_connection ? kBadConnection : kError;
}

}  // namespace keyway::ctl
