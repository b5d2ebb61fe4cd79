//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	"sluice/cmd/sluice/internal/bench"
	"sluice/cmd/sluice/internal/child"
	"sluice/fanout/redistest"
)

// order is what a crowd is told first. Whatever number comes after it on a line
// of its own is how many messages there have been, and the crowd says how many
// are lost. With the end of its input it ends.
type order struct {
	Nodes       []netip.AddrPort `json:"nodes"`
	ID          string           `json:"id"`
	Clock       int64            `json:"clock"` // Unix nanoseconds
	Streams     int              `json:"streams"`
	FirstSource int              `json:"first_source"`
	Payload     int              `json:"payload"`
}

// word is what a crowd says, a few times a second and when it was asked.
type word struct {
	bench.CrowdState
	Whole bool   `json:"whole"` // it is done with opening
	Sent  uint32 `json:"sent"`  // the last question
	Lost  int64  `json:"lost"`  // and its answer
}

const (
	roomName   = "scale"
	sayEvery   = 250 * time.Millisecond
	perSource  = 1000 // streams of an address, which is what a node allows
	connecting = 200  // streams of a crowd that are being opened
)

// beCrowd is the whole of a process that holds clients.
func beCrowd(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := json.NewDecoder(in)
	var o order
	if err := lines.Decode(&o); err != nil {
		return fmt.Errorf("reading what to do: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	questions := make(chan uint32)
	go func() { // ends with the process
		defer cancel()
		for {
			var sent uint32
			if lines.Decode(&sent) != nil {
				return
			}
			questions <- sent
		}
	}()
	say := speaker{to: json.NewEncoder(out)}
	crowd, err := bench.OpenCrowd(ctx, bench.Config{
		Subscribe: "http://" + o.Nodes[0].String() + "/rooms/{room}/events", Room: roomName,
		Nodes: o.Nodes, ID: o.ID, Clock: time.Unix(0, o.Clock), Streams: o.Streams, Payload: o.Payload,
		FirstSource: o.FirstSource, Sources: sources(o.Streams), Connecting: connecting, Patience: 30 * time.Second,
		Progress: func(p bench.Progress) {
			_ = say.word(word{CrowdState: bench.CrowdState{Open: p.Open}}) // if nobody listens, the input ends as well
		},
	})
	if err != nil {
		return err
	}
	defer crowd.Close()
	ticker := time.NewTicker(sayEvery)
	defer ticker.Stop()
	w := word{Whole: true}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case w.Sent = <-questions:
			w.Lost = crowd.Lost(w.Sent)
		}
		w.CrowdState = crowd.State()
		if err := say.word(w); err != nil {
			return err
		}
	}
}

// speaker says words. Once the crowd is whole, it says no more of how far it is
// with opening, which bench goes on to report beside.
type speaker struct {
	mu    sync.Mutex // guards the fields below
	to    *json.Encoder
	whole bool
}

func (s *speaker) word(w word) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.whole && !w.Whole {
		return nil
	}
	s.whole = w.Whole
	return s.to.Encode(w)
}

func sources(streams int) int { return (streams + perSource - 1) / perSource }

// crowd is a process with clients.
type crowd struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{} // closed when the process has ended and was waited for
	said child.Tail

	mu   sync.Mutex // guards last
	last word
}

// startCrowd starts a process with clients, and has t end it.
func startCrowd(t redistest.T, o order) (*crowd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &crowd{cmd: exec.Command(self, crowdCommand), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	c.cmd.SysProcAttr, c.cmd.Stderr = killedWithUs(), &c.said
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a crowd: %w", err)
	}
	go func() { // ends with the process
		defer close(c.done)
		c.listen(out)
		_ = c.cmd.Wait() // what it complains about is in said
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // may have ended by now
		<-c.done
	})
	return c, c.tell(o)
}

func (c *crowd) listen(out io.Reader) {
	for words := json.NewDecoder(bufio.NewReader(out)); ; {
		var w word
		if words.Decode(&w) != nil {
			return
		}
		c.mu.Lock()
		c.last = w
		c.mu.Unlock()
	}
}

// tell sends a line to the process.
func (c *crowd) tell(v any) error {
	if err := json.NewEncoder(c.in).Encode(v); err != nil {
		return fmt.Errorf("a crowd does not listen: %w; it said: %s", err, &c.said)
	}
	return nil
}

// word is what the crowd said last.
func (c *crowd) word() word {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (c *crowd) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}
