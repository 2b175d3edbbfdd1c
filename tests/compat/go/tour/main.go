// SPDX-License-Identifier: Apache-2.0

// The tour with etcd's official Go client: it does the same steps against any server and prints what
// the client saw, one line a step. What differs by nature (ids, terms, addresses) is not printed.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var ctx, cancel = context.WithTimeout(context.Background(), 60*time.Second)

func pairs(kvs []*mvccpb.KeyValue) string {
	lines := []string{}
	for _, kv := range kvs {
		lines = append(lines, pair(kv))
	}
	return "[" + strings.Join(lines, " ") + "]"
}

func pair(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "-"
	}
	lease := ""
	if kv.Lease != 0 {
		lease = " leased"
	}
	return fmt.Sprintf("%s=%s(c%d m%d v%d%s)", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, lease)
}

func say(step string, format string, arguments ...any) {
	fmt.Printf("%-28s %s\n", step, fmt.Sprintf(format, arguments...))
}

func fail(step string, err error) {
	say(step, "error %T %v", err, err)
}

func get(client *clientv3.Client, step string, key string, options ...clientv3.OpOption) {
	reply, err := client.Get(ctx, key, options...)
	if err != nil {
		fail(step, err)
		return
	}
	say(step, "rev %d count %d more %t %s", reply.Header.Revision, reply.Count, reply.More, pairs(reply.Kvs))
}

func put(client *clientv3.Client, step string, key string, value string, options ...clientv3.OpOption) {
	reply, err := client.Put(ctx, key, value, options...)
	if err != nil {
		fail(step, err)
		return
	}
	say(step, "rev %d prev %s", reply.Header.Revision, pair(reply.PrevKv))
}

func del(client *clientv3.Client, step string, key string, options ...clientv3.OpOption) {
	reply, err := client.Delete(ctx, key, options...)
	if err != nil {
		fail(step, err)
		return
	}
	say(step, "rev %d deleted %d prev %s", reply.Header.Revision, reply.Deleted, pairs(reply.PrevKvs))
}

// watch prints the first `count` events, or how the watch ended.
func watch(client *clientv3.Client, step string, key string, count int, options ...clientv3.OpOption) {
	inner, stop := context.WithTimeout(ctx, 15*time.Second)
	defer stop()
	events := []string{}
	for reply := range client.Watch(inner, key, options...) {
		for _, event := range reply.Events {
			events = append(events, fmt.Sprintf("%s %s prev %s", event.Type, pair(event.Kv), pair(event.PrevKv)))
		}
		if reply.Canceled {
			events = append(events, fmt.Sprintf("canceled compact %d err %v", reply.CompactRevision, reply.Err()))
			break
		}
		if len(events) >= count {
			break
		}
	}
	say(step, "%d: %s", len(events), strings.Join(events, " | "))
}

func txn(client *clientv3.Client, step string, ifs []clientv3.Cmp, thens []clientv3.Op, elses []clientv3.Op) {
	reply, err := client.Txn(ctx).If(ifs...).Then(thens...).Else(elses...).Commit()
	if err != nil {
		fail(step, err)
		return
	}
	parts := []string{}
	for _, response := range reply.Responses {
		switch {
		case response.GetResponsePut() != nil:
			parts = append(parts, "put prev "+pair(response.GetResponsePut().PrevKv))
		case response.GetResponseRange() != nil:
			parts = append(parts, "range "+pairs(response.GetResponseRange().Kvs))
		case response.GetResponseDeleteRange() != nil:
			parts = append(parts, fmt.Sprintf("deleted %d", response.GetResponseDeleteRange().Deleted))
		case response.GetResponseTxn() != nil:
			parts = append(parts, fmt.Sprintf("txn %t", response.GetResponseTxn().Succeeded))
		}
	}
	say(step, "rev %d ok %t %s", reply.Header.Revision, reply.Succeeded, strings.Join(parts, " | "))
}

func keys(client *clientv3.Client) {
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		put(client, "put "+name, "k/"+name, "1"+name)
	}
	put(client, "put again", "k/b", "2b", clientv3.WithPrevKV())
	put(client, "put ignore value", "k/c", "", clientv3.WithIgnoreValue())
	put(client, "put ignore value, no key", "k/none", "", clientv3.WithIgnoreValue())
	put(client, "put empty value", "k/empty", "")
	put(client, "put binary", "k/\x00\xff", "\x00\xfe")
	put(client, "put empty key", "", "x")
	get(client, "get", "k/a")
	get(client, "get missing", "k/zz")
	get(client, "get prefix", "k/", clientv3.WithPrefix())
	get(client, "get limit", "k/", clientv3.WithPrefix(), clientv3.WithLimit(2))
	get(client, "get old revision", "k/b", clientv3.WithRev(3))
	get(client, "get prefix old revision", "k/", clientv3.WithPrefix(), clientv3.WithRev(4))
	get(client, "get future revision", "k/b", clientv3.WithRev(1000))
	get(client, "get range", "k/b", clientv3.WithRange("k/d"))
	get(client, "get from key", "k/d", clientv3.WithFromKey())
	get(client, "get inverted range", "k/d", clientv3.WithRange("k/b"))
	get(client, "get all", "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	get(client, "get count only", "k/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	get(client, "get keys only", "k/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	get(client, "get serializable", "k/a", clientv3.WithSerializable())
	get(client, "get min mod", "k/", clientv3.WithPrefix(), clientv3.WithMinModRev(5))
	get(client, "get max mod", "k/", clientv3.WithPrefix(), clientv3.WithMaxModRev(5))
	get(client, "get min create", "k/", clientv3.WithPrefix(), clientv3.WithMinCreateRev(4))
	get(client, "get max create", "k/", clientv3.WithPrefix(), clientv3.WithMaxCreateRev(4), clientv3.WithLimit(1))
	get(client, "get first create", "k/", clientv3.WithFirstCreate()...)
	get(client, "get last rev", "k/", clientv3.WithLastRev()...)
	for target, name := range []string{"key", "version", "create", "mod", "value"} {
		get(client, "sort descending by "+name, "k/", clientv3.WithPrefix(),
			clientv3.WithSort(clientv3.SortTarget(target), clientv3.SortDescend), clientv3.WithLimit(3))
		get(client, "sort ascending by "+name, "k/", clientv3.WithPrefix(),
			clientv3.WithSort(clientv3.SortTarget(target), clientv3.SortAscend))
	}
}

func transactions(client *clientv3.Client) {
	txn(client, "txn create", []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision("t"), "=", 0)},
		[]clientv3.Op{clientv3.OpPut("t", "1")}, []clientv3.Op{clientv3.OpGet("t")})
	txn(client, "txn create again", []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision("t"), "=", 0)},
		[]clientv3.Op{clientv3.OpPut("t", "1")}, []clientv3.Op{clientv3.OpGet("t")})
	txn(client, "txn value", []clientv3.Cmp{clientv3.Compare(clientv3.Value("t"), ">", "0"), clientv3.Compare(clientv3.Version("t"), "<", 2),
		clientv3.Compare(clientv3.ModRevision("t"), "!=", 1)},
		[]clientv3.Op{clientv3.OpPut("t", "2", clientv3.WithPrevKV()), clientv3.OpPut("t2", "2"), clientv3.OpGet("t", clientv3.WithPrefix())}, nil)
	txn(client, "txn range compare", []clientv3.Cmp{clientv3.Compare(clientv3.Version("k/").WithPrefix(), ">", 0)},
		[]clientv3.Op{clientv3.OpDelete("t2"), clientv3.OpDelete("none")}, nil)
	txn(client, "txn nested", nil,
		[]clientv3.Op{clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("t"), "=", "2")},
			[]clientv3.Op{clientv3.OpPut("t3", "n")}, []clientv3.Op{clientv3.OpPut("t4", "n")})}, nil)
	txn(client, "txn read only", nil, []clientv3.Op{clientv3.OpGet("t"), clientv3.OpGet("t", clientv3.WithRev(3))}, nil)
	txn(client, "txn duplicate key", nil, []clientv3.Op{clientv3.OpPut("x", "1"), clientv3.OpPut("x", "2")}, nil)
	txn(client, "txn put in deleted range", nil, []clientv3.Op{clientv3.OpDelete("x", clientv3.WithPrefix()), clientv3.OpPut("x1", "2")}, nil)
	many := []clientv3.Op{}
	for i := range 129 {
		many = append(many, clientv3.OpPut(fmt.Sprintf("many/%d", i), "x"))
	}
	txn(client, "txn too many operations", nil, many, nil)
	txn(client, "txn at the limit", nil, many[:128], nil)
	txn(client, "txn empty", nil, nil, nil)
	_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
		stm.Put("stm", stm.Get("t")+"-stm")
		return nil
	})
	say("stm", "err %v", err)
	get(client, "stm result", "stm")
}

func deletes(client *clientv3.Client) {
	del(client, "delete", "k/a")
	del(client, "delete missing", "k/a")
	del(client, "delete prev", "k/b", clientv3.WithPrevKV())
	put(client, "put after delete", "k/b", "3b", clientv3.WithPrevKV())
	del(client, "delete range", "k/c", clientv3.WithRange("k/e"), clientv3.WithPrevKV())
	del(client, "delete prefix", "many/", clientv3.WithPrefix())
	del(client, "delete empty key", "")
	get(client, "get after deletes", "\x00", clientv3.WithFromKey())
}

func watches(client *clientv3.Client) {
	watch(client, "watch history", "k/", 14, clientv3.WithPrefix(), clientv3.WithRev(2))
	watch(client, "watch history prev", "k/", 14, clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithPrevKV())
	watch(client, "watch no put", "k/", 4, clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithFilterPut(), clientv3.WithPrevKV())
	watch(client, "watch no delete", "k/", 10, clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithFilterDelete())
	watch(client, "watch fragment", "k/", 14, clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithFragment())
	inner, stop := context.WithTimeout(ctx, 15*time.Second)
	defer stop()
	live := client.Watch(inner, "live", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithPrevKV())
	created := <-live
	say("watch created", "created %t events %d", created.Created, len(created.Events))
	client.Put(ctx, "live1", "a")
	client.Put(ctx, "live1", "b")
	client.Txn(ctx).Then(clientv3.OpPut("live2", "c"), clientv3.OpDelete("live1")).Commit()
	count := 0
	for reply := range live {
		for _, event := range reply.Events {
			say("watch live", "%s %s prev %s create %t modify %t", event.Type, pair(event.Kv), pair(event.PrevKv), event.IsCreate(), event.IsModify())
			count++
		}
		if count >= 4 {
			break
		}
	}
	client.RequestProgress(inner)
	for reply := range live {
		if reply.IsProgressNotify() {
			now, _ := client.Get(ctx, "live2")
			say("watch progress", "revision is current: %t", reply.Header.Revision == now.Header.Revision)
			break
		}
	}
}

func leases(client *clientv3.Client) {
	lease, err := client.Grant(ctx, 300)
	if err != nil {
		fail("lease grant", err)
		return
	}
	say("lease grant", "ttl %d", lease.TTL)
	put(client, "put leased", "lease/a", "1", clientv3.WithLease(lease.ID))
	put(client, "put leased", "lease/b", "1", clientv3.WithLease(lease.ID))
	put(client, "put ignore lease", "lease/b", "2", clientv3.WithIgnoreLease())
	put(client, "put drops lease", "lease/a", "2")
	alive, err := client.KeepAliveOnce(ctx, lease.ID)
	if err == nil {
		say("keep alive", "ttl %d", alive.TTL)
	} else {
		fail("keep alive", err)
	}
	left, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	say("time to live", "granted %d left ok %t keys %s err %v", left.GrantedTTL, left.TTL > 290 && left.TTL <= 300, left.Keys, err)
	all, err := client.Leases(ctx)
	say("leases", "count %d err %v", len(all.Leases), err)
	_, err = client.Revoke(ctx, lease.ID)
	say("revoke", "err %v", err)
	get(client, "get after revoke", "lease/", clientv3.WithPrefix())
	_, err = client.Revoke(ctx, lease.ID)
	fail("revoke again", err)
	_, err = client.KeepAliveOnce(ctx, lease.ID)
	fail("keep alive of none", err)
	gone, err := client.TimeToLive(ctx, lease.ID)
	say("time to live of none", "ttl %d err %v", gone.TTL, err)
	put(client, "put with no lease", "lease/c", "1", clientv3.WithLease(1234567))
	_, err = client.Grant(ctx, 9_000_000_001)
	fail("lease too long", err)

	short, err := client.Grant(ctx, 1)
	if err != nil {
		fail("lease short", err)
		return
	}
	say("lease short", "ttl %d", short.TTL)
	put(client, "put short", "short/a", "1", clientv3.WithLease(short.ID))
	put(client, "put short", "short/b", "1", clientv3.WithLease(short.ID))
	watch(client, "lease expiry", "short/", 4, clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV())
	get(client, "get after expiry", "short/", clientv3.WithPrefix())
}

func coordination(client *clientv3.Client) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
	if err != nil {
		fail("session", err)
		return
	}
	mutex := concurrency.NewMutex(session, "lock")
	say("lock", "err %v", mutex.Lock(ctx))
	other, _ := concurrency.NewSession(client, concurrency.WithTTL(30))
	say("try lock", "err %v", concurrency.NewMutex(other, "lock").TryLock(ctx))
	say("unlock", "err %v", mutex.Unlock(ctx))
	election := concurrency.NewElection(session, "election")
	say("campaign", "err %v", election.Campaign(ctx, "me"))
	leader, err := election.Leader(ctx)
	if err == nil {
		say("leader", "value %s", leader.Kvs[0].Value)
	}
	say("resign", "err %v", election.Resign(ctx))
	session.Close()
	other.Close()
}

func compaction(client *clientv3.Client) {
	now, _ := client.Get(ctx, "k/b")
	revision := now.Header.Revision
	_, err := client.Compact(ctx, revision-3)
	say("compact", "err %v", err)
	_, err = client.Compact(ctx, revision-3)
	fail("compact again", err)
	_, err = client.Compact(ctx, revision+100)
	fail("compact the future", err)
	get(client, "get compacted", "k/b", clientv3.WithRev(2))
	get(client, "get at compaction", "k/b", clientv3.WithRev(revision-3))
	watch(client, "watch compacted", "k/", 1, clientv3.WithPrefix(), clientv3.WithRev(2))
	_, err = client.Compact(ctx, revision, clientv3.WithCompactPhysical())
	say("compact physical", "err %v", err)
	get(client, "get after compaction", "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
}

func cluster(client *clientv3.Client, endpoint string) {
	members, err := client.MemberList(ctx)
	if err != nil {
		fail("member list", err)
		return
	}
	for _, member := range members.Members[:1] {
		say("member list", "id %t name %t peers %d clients %d learner %t", member.ID != 0, member.Name != "",
			len(member.PeerURLs), len(member.ClientURLs), member.IsLearner)
	}
	status, err := client.Status(ctx, endpoint)
	if err != nil {
		fail("status", err)
		return
	}
	say("status", "version %s leader %t term %t index %t applied %t size %t learner %t errors %v",
		strings.Join(strings.Split(status.Version, ".")[:2], "."), status.Leader != 0, status.RaftTerm > 0,
		status.RaftIndex > 0, status.RaftAppliedIndex > 0, status.DbSize > 0, status.IsLearner, status.Errors)
	hash, err := client.HashKV(ctx, endpoint, 0)
	if err != nil {
		fail("hash", err)
		return
	}
	say("hash", "hash %t compacted %d at %d", hash.Hash != 0, hash.CompactRevision, hash.HashRevision)
	_, err = client.MemberRemove(ctx, 12345)
	fail("member remove unknown", err)
	_, err = client.MemberPromote(ctx, 12345)
	fail("member promote unknown", err)
	_, err = client.MemberPromote(ctx, members.Members[0].ID)
	fail("member promote voter", err)
	// A young cluster of etcd refuses every change until it has seen its members for five seconds.
	for range 40 {
		_, err = client.MemberAdd(ctx, []string{members.Members[0].PeerURLs[0]})
		if err == nil || err.Error() != "etcdserver: unhealthy cluster" {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	fail("member add known peer", err)
}

func stream(client *clientv3.Client) {
	replies, err := client.GetStream(ctx, "k/", clientv3.WithPrefix())
	if err != nil {
		fail("range stream", err)
		return
	}
	reply, err := clientv3.GetStreamToGetResponse(replies)
	if err != nil {
		fail("range stream", err)
		return
	}
	say("range stream", "count %d more %t %s", reply.Count, reply.More, pairs(reply.Kvs))
}

func main() {
	defer cancel()
	endpoints := strings.Split(os.Args[1], ",")
	config := clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second}
	if ca := os.Getenv("KEYWAY_TEST_CACERT"); ca != "" {
		info := transport.TLSInfo{TrustedCAFile: ca, CertFile: os.Getenv("KEYWAY_TEST_CERT"),
			KeyFile: os.Getenv("KEYWAY_TEST_KEY")}
		files, err := info.ClientConfig()
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		config.TLS = files
	}
	client, err := clientv3.New(config)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer client.Close()
	keys(client)
	stream(client)
	transactions(client)
	deletes(client)
	watches(client)
	leases(client)
	coordination(client)
	cluster(client, endpoints[0])
	compaction(client)
	put(client, "put too large", "large", strings.Repeat("x", 3<<20))
	get(client, "the end", "k/", clientv3.WithPrefix())
}
