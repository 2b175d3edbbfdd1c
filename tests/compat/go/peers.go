// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package peers pins the programs that the tests build: they are named here so that go.mod keeps them.
package peers

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
