//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/cmd/sluice/internal/child"
	"sluice/fanout/redistest"
)

var sluice string // the program, built once

// TestMain lets the test binary be a crowd, too, as the program starts itself as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == crowdCommand {
		main()
		return
	}
	dir, err := os.MkdirTemp("", "sluice-scale-test-")
	if err == nil {
		sluice = filepath.Join(dir, "sluice")
		err = child.Build(context.Background(), sluice)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := goleak.Find(goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop")); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func small(streams int) *options {
	return &options{streams: streams, nodes: 3, messages: 2, payload: 150, heartbeat: time.Second, leave: 0.01, binary: sluice, progress: io.Discard, pause: 10 * time.Millisecond}
}

func TestEveryStreamIsToldEverythingOverTheDeathOfItsNode(t *testing.T) {
	results, err := small(300).measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := results[0].(*crowdResult)
	if r.Sent != 4 || r.Delivered != 4*300 || len(r.Messages) != 2 {
		t.Errorf("%d messages, %d deliveries, %d measured; want 4, %d and 2", r.Sent, r.Delivered, len(r.Messages), 4*300)
	}
	if r.Moved < 100 || r.MovedSeconds <= 0 {
		t.Errorf("%d streams moved in %v s, want the 100 of a node", r.Moved, r.MovedSeconds)
	}
	if r.Stream <= 0 || r.ConnectSeconds <= 0 || r.Messages[0].Seconds <= 0 || r.Messages[0].CPU <= 0 {
		t.Errorf("something was not measured: %+v", r)
	}
	var text bytes.Buffer
	if err := r.writeText(&text); err != nil || !strings.Contains(text.String(), "4 messages, 1200 deliveries: 0 lost") {
		t.Errorf("it says %q, %v", text.String(), err)
	}
}

func TestInterruptedTrialLeavesNoProcess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := small(200)
	o.heartbeat = time.Hour // which it would rest for
	said, watch := io.Pipe()
	o.progress = watch
	ended := make(chan error, 1)
	go func() {
		_, err := o.measure(ctx)
		_ = watch.Close()
		ended <- err
	}()
	for buf := make([]byte, 256); ; {
		n, err := said.Read(buf)
		if err != nil {
			t.Fatalf("it ended before it rested: %v", <-ended)
		}
		if bytes.HasPrefix(buf[:n], []byte("resting")) {
			break
		}
	}
	if len(children(t)) < 5 {
		t.Errorf("the processes are %v; want a Redis, three nodes and a crowd", children(t))
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("it says that all went well")
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("left are the processes %v", left)
	}
}

// children are the processes that this one has.
func children(t *testing.T) (found []string) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		t.Fatalf("the system does not say what processes there are: %v", err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		found = append(found, strings.Fields(string(text))...)
	}
	return found
}

func TestWhatDoesNotFitIsRefusedBeforehand(t *testing.T) {
	plenty := machine{available: 64 << 30, descriptors: 20_000, files: 10_000_000}
	for name, tt := range map[string]struct {
		streams, nodes int
		change         func(*machine)
		want           string // in the error; none if empty
	}{
		"a million":              {1_000_000, 0, func(*machine) {}, ""},
		"too little memory":      {1_000_000, 0, func(m *machine) { m.available = 8 << 30 }, "-streams 2"},
		"no memory at all":       {1000, 0, func(m *machine) { m.available = 1 << 30 }, "-streams 0 fit"},
		"too few files":          {1_000_000, 0, func(m *machine) { m.files = 400_000 }, "-streams 200000 fit"},
		"too few nodes":          {100_000, 4, func(*machine) {}, "give it 7 nodes"},
		"one node":               {100, 1, func(*machine) {}, "at least 2"},
		"few descriptors":        {100_000, 0, func(m *machine) { m.descriptors = 1024 }, ""},
		"hardly any descriptors": {100, 0, func(m *machine) { m.descriptors = 1 }, "ulimit"},
	} {
		m := plenty
		tt.change(&m)
		l, err := (&options{streams: tt.streams, nodes: tt.nodes, messages: 1, leave: 4}).layout(m)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want == "" && (l.crowds*l.perCrowd < tt.streams || l.perCrowd > m.descriptors*9/10):
			t.Errorf("%s: %+v", name, l)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
}

func TestGrowthIsMeasured(t *testing.T) {
	r := &growthResult{Kind: "growth", Axis: "nodes", Value: 2, load: load{Streams: 50, Rooms: 5, Rate: 100, Payload: 200, Nodes: 2}}
	var err error
	failed := redistest.Run(nil, func(t redistest.T) {
		err = small(50).grow(context.Background(), t, r, 500*time.Millisecond, newStatus(io.Discard))
	})
	if failed != nil || err != nil {
		t.Fatal(failed, err)
	}
	if r.Events != 50 || r.Deliveries != 500 || r.CPU <= 0 || r.EventCPU <= 0 || r.P99 <= 0 || !r.Faultless {
		t.Errorf("%+v; want 50 events, 500 deliveries, and what they cost", r)
	}
}

func TestResultsAreAddedToAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "growth.json")
	for i := range 3 {
		if err := addTo(name, []result{&crowdResult{Streams: i}, &growthResult{Value: i}}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []struct{ Streams, Value int }
	if err := json.Unmarshal(text, &all); err != nil || len(all) != 6 || all[4].Streams != 2 || all[5].Value != 2 {
		t.Errorf("%s is %s, %v", name, text, err)
	}
}

func TestACrowdThatIsWholeSaysNoMoreOfOpening(t *testing.T) {
	var said bytes.Buffer
	s := speaker{to: json.NewEncoder(&said)}
	for _, w := range []word{{Sent: 1}, {Sent: 2, Whole: true}, {Sent: 3}, {Sent: 4, Whole: true}} {
		if err := s.word(w); err != nil {
			t.Fatal(err)
		}
	}
	var heard []uint32
	for words := json.NewDecoder(&said); words.More(); {
		var w word
		if err := words.Decode(&w); err != nil {
			t.Fatal(err)
		}
		heard = append(heard, w.Sent)
	}
	if want := []uint32{1, 2, 4}; !slices.Equal(heard, want) {
		t.Errorf("heard the words %v, want %v", heard, want)
	}
}
