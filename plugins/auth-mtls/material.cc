// SPDX-License-Identifier: Apache-2.0
//
// Reading PEM files, and refusing sets that are half written or do not fit together.
#include "material.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace keyway::auth_mtls {
namespace {

bool ReadOne(const File& file, std::string* out, std::string* error) {
  out->clear();
  if (!file.is_set()) return true;
  const auto fail = [&](const char* why) {
    *error = file.Text() + ": " + why;
    return false;
  };
  const int fd = open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return fail(std::strerror(errno));
  struct stat status = {};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(fd);
    return fail("not a regular file");
  }
  char buffer[16384];
  ssize_t count = 0;
  while ((count = read(fd, buffer, sizeof buffer)) > 0 && out->size() <= kPemBytesMax) {
    out->append(buffer, static_cast<size_t>(count));
  }
  const int read_errno = errno;
  close(fd);
  if (count < 0) return fail(std::strerror(read_errno));
  if (out->size() > kPemBytesMax) return fail("larger than 4 MiB");
  return true;
}

size_t CountOf(const std::string& text, const char* word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

// Each block of a bundle must be readable, or a file that is being written loses roots unnoticed.
bool IsWhole(const std::string& pem, size_t readable, const char* block) {
  const size_t begun = CountOf(pem, (std::string("-----BEGIN ") + block).c_str());
  return begun == readable && CountOf(pem, "-----BEGIN ") == CountOf(pem, "-----END ");
}

}  // namespace

int64_t SecondsOf(const ASN1_TIME* time) {
  tm parts = {};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return static_cast<int64_t>(timegm(&parts));
}

bool ReadPemSet(const Files& files, PemSet* out, std::string* error) {
  return ReadOne(files.chain, &out->chain, error) && ReadOne(files.key, &out->key, error) &&
         ReadOne(files.roots, &out->roots, error) && ReadOne(files.lists, &out->lists, error);
}

std::shared_ptr<Material> MakeMaterial(const Files& files, PemSet pem, std::string* error) {
  auto material = std::make_shared<Material>();
  const auto fail = [&](const File& file, const std::string& why) {
    ERR_clear_error();
    *error = file.Text() + ": " + why;
    return nullptr;
  };
  ERR_clear_error();
  tls::X509Ptr leaf;
  const int chain_length = tls::ForEachCertificate(Slice(pem.chain), [&](tls::X509Ptr next) {
    if (leaf == nullptr) leaf = std::move(next);
    return true;
  });
  if (leaf == nullptr) return fail(files.chain, "no certificate in it");
  if (!IsWhole(pem.chain, static_cast<size_t>(chain_length), "CERTIFICATE-----")) {
    return fail(files.chain, "damaged or half written");
  }
  const tls::BioPtr key_bio = tls::Memory(Slice(pem.key));
  const tls::KeyPtr key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, &tls::NoPassword, nullptr));
  if (key == nullptr) {
    if (pem.key.find("ENCRYPTED") != std::string::npos) {
      return fail(files.key,
                  "the key is protected by a password; store it without one (openssl pkey -in ...)");
    }
    return fail(files.key, "no readable key in it");
  }
  if (X509_check_private_key(leaf.get(), key.get()) != 1) {
    return fail(files.key, "is not the key of the certificate in " + files.chain.path);
  }
  if (files.roots.is_set()) {
    const int root_count = tls::ForEachCertificate(Slice(pem.roots), [](tls::X509Ptr) { return true; });
    if (root_count == 0) return fail(files.roots, "no certificate in it");
    if (!IsWhole(pem.roots, static_cast<size_t>(root_count), "CERTIFICATE-----")) {
      return fail(files.roots, "damaged or half written");
    }
    if (files.lists.is_set()) {
      const tls::BioPtr bio = tls::Memory(Slice(pem.lists));
      size_t list_count = 0;
      while (X509_CRL* const next = PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr)) {
        const tls::CrlPtr list(next);
        const int64_t due_s = SecondsOf(X509_CRL_get0_nextUpdate(next));
        if (due_s != 0 && (material->lists_due_s == 0 || due_s < material->lists_due_s)) {
          material->lists_due_s = due_s;
        }
        ++list_count;
      }
      if (list_count == 0) return fail(files.lists, "no revocation list in it");
      if (!IsWhole(pem.lists, list_count, "X509 CRL-----")) {
        return fail(files.lists, "damaged or half written");
      }
    }
    material->store.reset(X509_STORE_new());
    std::string why;
    if (!tls::FillStore(material->store.get(), Slice(pem.roots), Slice(pem.lists), &why)) {
      return fail(files.roots, why);
    }
  }
  ERR_clear_error();
  material->expires_s = SecondsOf(X509_get0_notAfter(leaf.get()));
  material->description = tls::Describe(leaf.get());
  material->pem = std::move(pem);
  return material;
}

std::vector<std::string> WarningsOf(const Files& files, const Material& material, int64_t now_s) {
  std::vector<std::string> warnings;
  if (material.expires_s <= now_s) warnings.push_back(files.chain.Text() + ": the certificate has expired");
  if (material.lists_due_s != 0 && material.lists_due_s <= now_s) {
    warnings.push_back(files.lists.Text() + ": a revocation list is past its next update; it is used still");
  }
  struct stat status = {};
  if (stat(files.key.path.c_str(), &status) == 0 && (status.st_mode & (S_IROTH | S_IWOTH)) != 0) {
    warnings.push_back(files.key.Text() + ": the key can be read or written by everybody on this machine");
  }
  return warnings;
}

}  // namespace keyway::auth_mtls
