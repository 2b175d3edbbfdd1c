// SPDX-License-Identifier: Apache-2.0

// Command porcupine checks histories of the simulator, as JSON lines, with the linearizability checker of
// others. Its model of the store was written apart from ours. It prints for each file our verdict, its
// own, and the defect that was put in; its exit status is 1 if the verdicts differ anywhere.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

const timeout = 120 * time.Second

type line struct {
	Type     string   `json:"type"`
	Verdict  string   `json:"verdict"`
	Mutation string   `json:"mutation"`
	Client   int      `json:"client"`
	CallNs   int64    `json:"call_ns"`
	ReturnNs int64    `json:"return_ns"`
	Kind     string   `json:"kind"`
	Outcome  string   `json:"outcome"`
	Lease    int64    `json:"lease"`
	Request  request  `json:"request"`
	Response response `json:"response"`
}

// The operations of a file that say something about the newest state.
func operationsOf(path string) (head line, operations []porcupine.Operation, err error) {
	file, err := os.Open(path)
	if err != nil {
		return head, nil, err
	}
	defer file.Close()
	reader := bufio.NewReaderSize(file, 1<<20)
	decoder := json.NewDecoder(reader)
	for decoder.More() {
		var l line
		if err := decoder.Decode(&l); err != nil {
			return head, nil, fmt.Errorf("%s: %w", path, err)
		}
		switch l.Type {
		case "history":
			head = l
		case "expiry":
			// When, nobody was told.
			in := input{kind: "expiry", request: request{Lease: l.Lease}}
			operations = append(operations, porcupine.Operation{
				Input: in, Output: output(nil), Call: 0, Return: math.MaxInt64})
		case "operation":
			if o, there := operationOf(l); there {
				operations = append(operations, o)
			}
		}
	}
	return head, operations, nil
}

func operationOf(l line) (porcupine.Operation, bool) {
	o := porcupine.Operation{
		ClientId: l.Client, Input: input{l.Kind, l.Request}, Output: output(nil), Call: l.CallNs,
		Return: math.MaxInt64}
	// What is read from one member only, or answered from its state, may be behind.
	if l.Request.Serializable || l.Kind == "lease_keep_alive" || l.Kind == "lease_time_to_live" {
		return o, false
	}
	if l.Outcome == "error" || (l.Outcome == "unknown" && !mayWrite(&l.Request.txn) && l.Kind != "lease_revoke") {
		return o, false
	}
	if l.Outcome == "ok" {
		told := l.Response
		o.Output, o.Return = output(&told), l.ReturnNs
	}
	return o, true
}

func main() {
	differ, slow := false, false
	for _, path := range os.Args[1:] {
		head, operations, err := operationsOf(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		verdict := "unknown"
		switch porcupine.CheckOperationsTimeout(model, operations, timeout) {
		case porcupine.Ok:
			verdict = "good"
		case porcupine.Illegal:
			verdict = "bad"
		}
		fmt.Printf("ours=%s porcupine=%s operations=%d mutation=%s\n", head.Verdict, verdict, len(operations),
			head.Mutation)
		slow = slow || verdict == "unknown"
		differ = differ || (verdict != "unknown" && verdict != head.Verdict)
	}
	if differ {
		os.Exit(1)
	}
	if slow {
		os.Exit(3)
	}
}
