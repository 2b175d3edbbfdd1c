// SPDX-License-Identifier: Apache-2.0
//
// A listening socket. Its connections are dealt to the I/O threads in turn.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io_thread.h"

namespace keyway::api_etcd {

class Listener final : public Pollable {
 public:
  // [control] Parses and binds `url`; on an error nothing is left behind and the text names it.
  static int32_t Open(Server* server, const std::string& url, std::unique_ptr<Listener>* out,
                      kw_error* error);
  ~Listener();

  int fd() const { return fd_; }
  bool is_tls() const { return is_tls_; }
  // `accepting` polls it and deals the sockets to `serving` in turn; the two are the same for TLS.
  void Attach(IoThread* accepting, std::vector<IoThread*> serving);

  // ---- on the accepting thread ---------------------------------------------------------------
  void OnEvents(uint32_t events) override;
  void Close();

 private:
  static constexpr uint32_t kAcceptsPerTurnMax = 64;
  static constexpr uint32_t kTlsAcceptsPerTurnMax = 1024;  // The queue of the socket.
  static constexpr uint32_t kTlsAcceptsPerTurnYielding = 4;

  explicit Listener(Server* server) : server_(server) {}
  int32_t BindUnix(const std::string& path, kw_error* error);
  int32_t BindTcp(const std::string& address, kw_error* error);
  void Pause();

  Server* const server_;
  std::string url_;
  std::string unix_path_;
  int fd_ = -1;
  bool is_tls_ = false;
  bool is_unix_ = false;
  IoThread* accepting_ = nullptr;
  std::vector<IoThread*> threads_;
  size_t next_thread_ = 0;
  struct PauseTimer : TimerWheel::Timer {
    Listener* listener = nullptr;
  } pause_;
};

}  // namespace keyway::api_etcd
