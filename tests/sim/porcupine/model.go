// SPDX-License-Identifier: Apache-2.0

package main

import (
	"hash/fnv"
	"sort"
	"strconv"

	"github.com/anishathalye/porcupine"
)

// Numbers of keyway/kernel.h.
const (
	opRange, opPut, opDelete, opTxn                    = 1, 2, 3, 4
	putPrevKV, putIgnoreValue, putIgnoreLease          = 1, 2, 4
	deletePrevKV                                       = 1
	rangeKeysOnly, rangeCountOnly                      = 1, 2
	sortKey, sortVersion, sortCreate, sortMod, sortVal = 0, 1, 2, 3, 4
	orderNone, orderDescend                            = 0, 2
	cmpVersion, cmpCreate, cmpMod, cmpValue, cmpLease  = 0, 1, 2, 3, 4
	relEqual, relGreater, relLess, relNotEqual         = 0, 1, 2, 3
)

type pair struct {
	Key            string `json:"key"`
	Value          string `json:"value"`
	CreateRevision int64  `json:"create_revision"`
	ModRevision    int64  `json:"mod_revision"`
	Version        int64  `json:"version"`
	Lease          int64  `json:"lease"`
}

type compare struct {
	Key      string `json:"key"`
	End      string `json:"end"`
	Value    string `json:"value"`
	Number   int64  `json:"number"`
	Target   int    `json:"target"`
	Relation int    `json:"relation"`
}

type op struct {
	Kind       int    `json:"kind"`
	Flags      int    `json:"flags"`
	Key        string `json:"key"`
	End        string `json:"end"`
	Value      string `json:"value"`
	Lease      int64  `json:"lease"`
	Revision   int64  `json:"revision"`
	Limit      int    `json:"limit"`
	ModMin     int64  `json:"mod_min"`
	ModMax     int64  `json:"mod_max"`
	CreateMin  int64  `json:"create_min"`
	CreateMax  int64  `json:"create_max"`
	SortTarget int    `json:"sort_target"`
	SortOrder  int    `json:"sort_order"`
	RangeFlags int    `json:"range_flags"`
	Txn        *txn   `json:"txn"`
}

type txn struct {
	Compares []compare `json:"compares"`
	Then     []op      `json:"then"`
	Else     []op      `json:"else"`
}

type request struct {
	txn
	Serializable bool  `json:"serializable"`
	Revision     int64 `json:"revision"`
	Lease        int64 `json:"lease"`
}

type result struct {
	Kind      int      `json:"kind"`
	More      bool     `json:"more"`
	Succeeded bool     `json:"succeeded"`
	Count     int64    `json:"count"`
	Pairs     []pair   `json:"pairs"`
	Nested    []result `json:"nested"`
}

type response struct {
	Revision  int64    `json:"revision"`
	Succeeded bool     `json:"succeeded"`
	Results   []result `json:"results"`
}

// What an operation does to the store.
type input struct {
	kind    string // As in the history; "expiry": the end of a lease.
	request request
}

// What its client was told; nil: nothing, and it may never have happened.
type output *response

// The whole store. Never changed once it is a state of the search.
type store struct {
	revision int64
	pairs    map[string]pair
	digest   uint64 // The sum of the hashes of the pairs.
}

func (s *store) copy() *store {
	pairs := make(map[string]pair, len(s.pairs)+1)
	for key, value := range s.pairs {
		pairs[key] = value
	}
	return &store{s.revision, pairs, s.digest}
}

func digestOf(p pair) uint64 {
	hash := fnv.New64a()
	hash.Write([]byte(p.Key))
	hash.Write([]byte{0})
	hash.Write([]byte(p.Value))
	for _, number := range []int64{p.CreateRevision, p.ModRevision, p.Version, p.Lease} {
		hash.Write([]byte(strconv.FormatInt(number, 16)))
		hash.Write([]byte{0})
	}
	return hash.Sum64()
}

func (s *store) remove(key string) {
	if old, there := s.pairs[key]; there {
		s.digest -= digestOf(old)
		delete(s.pairs, key)
	}
}

func (s *store) set(p pair) {
	s.remove(p.Key)
	s.pairs[p.Key] = p
	s.digest += digestOf(p)
}

func inRange(key, begin, end string) bool {
	switch end {
	case "":
		return key == begin
	case "\x00":
		return key >= begin
	}
	return key >= begin && key < end
}

func (s *store) find(begin, end string) []pair {
	var found []pair
	if end == "" {
		if p, there := s.pairs[begin]; there {
			found = append(found, p)
		}
		return found
	}
	for key, p := range s.pairs {
		if inRange(key, begin, end) {
			found = append(found, p)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Key < found[j].Key })
	return found
}

func holds(c compare, p pair) bool {
	var number int64
	switch c.Target {
	case cmpVersion:
		number = p.Version
	case cmpCreate:
		number = p.CreateRevision
	case cmpMod:
		number = p.ModRevision
	case cmpLease:
		number = p.Lease
	}
	less, greater := number < c.Number, number > c.Number
	if c.Target == cmpValue {
		less, greater = p.Value < c.Value, p.Value > c.Value
	}
	switch c.Relation {
	case relEqual:
		return !less && !greater
	case relNotEqual:
		return less || greater
	case relGreater:
		return greater
	}
	return less
}

func (s *store) decide(t *txn, path *[]bool) {
	all := true
	for _, c := range t.Compares {
		found := s.find(c.Key, c.End)
		if len(found) == 0 && (c.Target == cmpValue || !holds(c, pair{})) {
			all = false
		}
		for _, p := range found {
			all = all && holds(c, p)
		}
	}
	*path = append(*path, all)
	for _, o := range t.branch(all) {
		if o.Kind == opTxn {
			s.decide(o.Txn, path)
		}
	}
}

func (t *txn) branch(succeeded bool) []op {
	if succeeded {
		return t.Then
	}
	return t.Else
}

// A run of one txn on a copy of the store.
type run struct {
	before  *store
	now     *store
	path    []bool
	written bool
	fails   bool // A put that keeps something of a key that does not exist.
}

func (r *run) check(t *txn, path *[]bool) {
	succeeded := (*path)[0]
	*path = (*path)[1:]
	for _, o := range t.branch(succeeded) {
		if o.Kind == opPut && o.Flags&(putIgnoreValue|putIgnoreLease) != 0 {
			if _, there := r.before.pairs[o.Key]; !there {
				r.fails = true
			}
		}
		if o.Kind == opTxn {
			r.check(o.Txn, path)
		}
	}
}

func (r *run) execute(t *txn) result {
	answer := result{Kind: opTxn, Succeeded: r.path[0]}
	r.path = r.path[1:]
	for _, o := range t.branch(answer.Succeeded) {
		switch o.Kind {
		case opRange:
			answer.Nested = append(answer.Nested, rangeOf(r.now, o))
		case opPut:
			answer.Nested = append(answer.Nested, r.put(o))
		case opDelete:
			answer.Nested = append(answer.Nested, r.delete(o.Key, o.End, o.Flags))
		default:
			answer.Nested = append(answer.Nested, r.execute(o.Txn))
		}
	}
	return answer
}

func (r *run) put(o op) result {
	answer := result{Kind: opPut}
	revision := r.before.revision + 1
	p := pair{o.Key, o.Value, revision, revision, 1, o.Lease}
	if old, there := r.now.pairs[o.Key]; there {
		p.CreateRevision = old.CreateRevision
		p.Version = old.Version + 1
		if o.Flags&putIgnoreValue != 0 {
			p.Value = old.Value
		}
		if o.Flags&putIgnoreLease != 0 {
			p.Lease = old.Lease
		}
		if o.Flags&putPrevKV != 0 {
			answer.Pairs = []pair{old}
		}
	}
	r.now.set(p)
	r.written = true
	return answer
}

func (r *run) delete(key, end string, flags int) result {
	found := r.now.find(key, end)
	answer := result{Kind: opDelete, Count: int64(len(found))}
	if flags&deletePrevKV != 0 {
		answer.Pairs = found
	}
	for _, p := range found {
		r.now.remove(p.Key)
		r.written = true
	}
	return answer
}

func rangeOf(s *store, o op) result {
	found := s.find(o.Key, o.End)
	answer := result{Kind: opRange, Count: int64(len(found))}
	if o.RangeFlags&rangeCountOnly != 0 {
		return answer
	}
	filters := o.ModMin != 0 || o.ModMax != 0 || o.CreateMin != 0 || o.CreateMax != 0
	if o.Limit > 0 && o.SortOrder == orderNone && !filters && len(found) > o.Limit+1 {
		found = found[:o.Limit+1] // etcd reads no more; a sort target sorts these.
	}
	var kept []pair
	for _, p := range found {
		if (o.ModMin != 0 && p.ModRevision < o.ModMin) || (o.ModMax != 0 && p.ModRevision > o.ModMax) ||
			(o.CreateMin != 0 && p.CreateRevision < o.CreateMin) ||
			(o.CreateMax != 0 && p.CreateRevision > o.CreateMax) {
			continue
		}
		kept = append(kept, p)
	}
	less := func(a, b pair) bool {
		switch o.SortTarget {
		case sortVersion:
			return a.Version < b.Version
		case sortCreate:
			return a.CreateRevision < b.CreateRevision
		case sortMod:
			return a.ModRevision < b.ModRevision
		case sortVal:
			return a.Value < b.Value
		}
		return a.Key < b.Key
	}
	sort.SliceStable(kept, func(i, j int) bool {
		if o.SortOrder == orderDescend {
			return less(kept[j], kept[i])
		}
		return less(kept[i], kept[j])
	})
	if o.Limit > 0 && len(kept) > o.Limit {
		kept = kept[:o.Limit]
		answer.More = true
	}
	if o.RangeFlags&rangeKeysOnly != 0 {
		for i := range kept {
			kept[i].Value = ""
			if o.SortTarget != sortVal {
				kept[i].Lease = 0
			}
		}
	}
	answer.Pairs = kept
	return answer
}

// Whether two lists of results are the same; ranges at an old revision are not looked at.
func same(ops []op, a, b []result) bool {
	if len(a) != len(b) || len(a) != len(ops) {
		return false
	}
	for i := range a {
		if ops[i].Kind == opRange && ops[i].Revision != 0 {
			continue
		}
		if a[i].Kind != b[i].Kind || a[i].Count != b[i].Count || a[i].More != b[i].More ||
			a[i].Succeeded != b[i].Succeeded || len(a[i].Pairs) != len(b[i].Pairs) {
			return false
		}
		for j := range a[i].Pairs {
			if a[i].Pairs[j] != b[i].Pairs[j] {
				return false
			}
		}
		if ops[i].Kind == opTxn && !same(ops[i].Txn.branch(a[i].Succeeded), a[i].Nested, b[i].Nested) {
			return false
		}
	}
	return true
}

func stepTxn(before *store, in input, told output) (bool, *store) {
	r := run{before: before, now: before}
	before.decide(&in.request.txn, &r.path)
	path := r.path
	r.check(&in.request.txn, &path)
	if r.fails {
		return told == nil, before
	}
	if mayWrite(&in.request.txn) {
		r.now = before.copy()
	}
	answer := r.execute(&in.request.txn)
	if r.written {
		r.now.revision++
	}
	if told == nil {
		return true, r.now
	}
	if told.Revision != r.now.revision || (in.kind == "txn" && told.Succeeded != answer.Succeeded) {
		return false, before
	}
	return same(in.request.txn.branch(answer.Succeeded), told.Results, answer.Nested), r.now
}

func mayWrite(t *txn) bool {
	for _, ops := range [][]op{t.Then, t.Else} {
		for _, o := range ops {
			if o.Kind == opPut || o.Kind == opDelete || (o.Kind == opTxn && mayWrite(o.Txn)) {
				return true
			}
		}
	}
	return false
}

// The keys of the lease go, in one revision.
func stepEnd(before *store, lease int64, told output) (bool, *store) {
	r := run{before: before, now: before.copy()}
	for key, p := range before.pairs {
		if p.Lease == lease {
			r.now.remove(key)
			r.written = true
		}
	}
	if r.written {
		r.now.revision++
	}
	return told == nil || told.Revision == r.now.revision, r.now
}

var model = porcupine.Model{
	Init: func() interface{} { return &store{revision: 1, pairs: map[string]pair{}} },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		before, i, told := state.(*store), in.(input), out.(output)
		switch i.kind {
		case "put", "delete", "range", "txn":
			return stepTxn(before, i, told)
		case "lease_revoke", "expiry":
			return stepEnd(before, i.request.Lease, told)
		}
		// Changes no key, but tells the revision.
		return told == nil || told.Revision == before.revision, before
	},
	Equal: func(a, b interface{}) bool {
		x, y := a.(*store), b.(*store)
		return x == y || (x.revision == y.revision && x.digest == y.digest && len(x.pairs) == len(y.pairs))
	},
}
