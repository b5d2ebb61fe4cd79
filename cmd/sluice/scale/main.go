//go:build linux

// Command scale shows how a gateway grows, on one machine. It starts a Redis,
// nodes and the clients itself, and ends all of them, whatever happens.
//
//	go run ./cmd/sluice/scale -streams 100000
//	    many clients in one room: what they cost, how fast all of them are told
//	    something, and what becomes of those whose node is killed
//	go run ./cmd/sluice/scale -growth .
//	    what a delivery costs with more rooms, events, bytes and nodes
//
// A process may have so many connections only, so both ends are several
// processes: nodes are `sluice serve`, and crowds are this program once more
// (crowd.go), which take their orders on standard input and report on standard
// output. Clients come from many addresses of 127.0.0.0/8. Both check what they
// get with internal/bench: every stream is to get every message once, whole and
// in order, also over the death of its node.
//
//	main -> trial (trial.go)   -> cluster (cluster.go), crowds -> crowdResult
//	     -> growth (growth.go) -> cluster, bench.Run           -> growthResult
//
// It begins nothing for which the machine has not the memory, or the
// descriptors, and says how much it has them for (machine.go).
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"sluice/cmd/sluice/internal/child"
	"sluice/fanout/redistest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := start(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	streams, nodes, messages, payload int
	heartbeat, limit                  time.Duration
	leave                             float64
	growth, binary, add               string
	json                              bool

	progress io.Writer
	pause    time.Duration // for memory that is not needed to be given back
}

// crowdCommand is the first argument of a process that holds clients.
const crowdCommand = "crowd"

func start(ctx context.Context, args []string, in io.Reader, out, progress io.Writer) error {
	if len(args) == 1 && args[0] == crowdCommand {
		return beCrowd(ctx, in, out)
	}
	o := options{progress: progress, pause: 3 * time.Second}
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.IntVar(&o.streams, "streams", 10_000, "clients to connect")
	flags.IntVar(&o.nodes, "nodes", 0, "nodes to spread them over; by default as many as it takes, and one more, since one is killed")
	flags.IntVar(&o.messages, "messages", 3, "messages to all, one after the other, before the kill")
	flags.IntVar(&o.payload, "payload", 150, "bytes of a message")
	flags.DurationVar(&o.heartbeat, "heartbeat", 15*time.Second, "the nodes' --heartbeat")
	flags.Float64Var(&o.leave, "leave", 4, "GiB of memory to leave to others")
	flags.DurationVar(&o.limit, "limit", 15*time.Minute, "how long it may take, in all")
	flags.StringVar(&o.growth, "growth", "", "instead: growth along the axes whose name matches this expression: rooms, rate, payload, nodes")
	flags.StringVar(&o.binary, "sluice", "", "the program to measure; built from this module if left out")
	flags.StringVar(&o.add, "add", "", "add the results to this file, a JSON array")
	flags.BoolVar(&o.json, "json", false, "print the results as JSON")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done within -limit %v", o.limit))
	defer cancel()
	results, err := o.measure(ctx)
	for _, r := range results {
		if err := o.report(out, r); err != nil {
			return err
		}
	}
	if err == nil && o.add != "" {
		err = addTo(o.add, results)
	}
	return err
}

// measure does what was asked for. What it started has ended when it returns.
func (o *options) measure(ctx context.Context) (results []result, err error) {
	wanted, err := regexp.Compile(o.growth)
	if err != nil {
		return nil, fmt.Errorf("-growth: %w", err)
	}
	var plan *layout
	if o.growth == "" { // before anything is built
		if plan, err = o.layout(thisMachine()); err != nil {
			return nil, err
		}
	}
	if o.binary == "" {
		dir, err := os.MkdirTemp("", "sluice-scale-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		o.binary = filepath.Join(dir, "sluice")
		if err := child.Build(ctx, o.binary); err != nil {
			return nil, err
		}
	}
	line := newStatus(o.progress)
	defer line.clear()
	if o.growth != "" {
		return o.measureGrowth(ctx, wanted, line)
	}
	var r *crowdResult
	failed := redistest.Run(nil, func(t redistest.T) { r, err = newTrial(ctx, t, o, plan, line).run() })
	if r != nil {
		results = append(results, r)
	}
	if err = errors.Join(failed, err); err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return results, err
}

// result is one measurement.
type result interface {
	writeText(w io.Writer) error
}

func (o *options) report(w io.Writer, r result) error {
	if !o.json {
		return r.writeText(w)
	}
	return json.NewEncoder(w).Encode(r)
}

// addTo appends results to a JSON array, one a line.
func addTo(name string, results []result) error {
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte("[]"), nil
	}
	if err != nil {
		return err
	}
	var all []json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, r := range results {
		one, err := json.Marshal(r)
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	var b bytes.Buffer
	for i, one := range all {
		b.WriteString(map[bool]string{true: "[\n", false: ",\n"}[i == 0])
		b.Write(one)
	}
	b.WriteString("\n]\n")
	return os.WriteFile(name, b.Bytes(), 0o644)
}
