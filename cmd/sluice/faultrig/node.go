package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/cmd/sluice/internal/child"
	"sluice/fanout/redistest"
)

// node is a gateway: `sluice serve` in a process of its own, or rather a
// succession of them at one address. front is where clients find it.
type node struct {
	r     *rig
	addr  string
	admin string
	front *redistest.Proxy // nil: clients connect directly

	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended and was waited for
	said   child.Tail
	before float64 // goroutines when it began
}

// newNode starts a node and returns when it is ready.
func (r *rig) newNode() *node {
	r.Helper()
	n := &node{r: r, addr: r.freeAddr(), admin: r.freeAddr()}
	if r.scenario.fronts {
		n.front = redistest.NewProxy(r, n.addr)
	}
	n.start()
	r.Cleanup(func() {
		if r.verdict.bad() {
			r.Logf("%s wrote at last:\n%s", n.addr, &n.said)
		}
	})
	return n
}

// base is where clients find the node, url the node itself.
func (n *node) base() string {
	if n.front != nil {
		return n.front.Addr()
	}
	return n.addr
}

func (n *node) url() string { return "http://" + n.addr }

// start runs the node's next process and returns when it is ready.
func (n *node) start() {
	n.r.Helper()
	args := []string{n.r.cfg.binary, "serve", "--listen", n.addr, "--admin", n.admin, "--redis", n.r.store.url}
	if limit := n.r.scenario.descriptors; limit > 0 {
		args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, limit)}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(child.Environ(), n.r.settings()...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &n.said, &n.said, attributes()
	if err := cmd.Start(); err != nil {
		n.r.Fatalf("starting a node: %v", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
		close(done)
	}()
	n.cmd, n.done = cmd, done
	n.r.Cleanup(func() {
		_ = cmd.Process.Kill() // may have ended by now
		<-done
	})
	if err := n.await(http.StatusOK, 30*time.Second); err != nil {
		n.r.Fatalf("a node does not become ready: %v; it wrote:\n%s", err, &n.said)
	}
	n.before = n.metric("go_goroutines")
}

func (n *node) running() bool {
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// kill ends the process as a crash does.
func (n *node) kill() {
	_ = n.cmd.Process.Kill() // may have ended by now
	<-n.done
}

// stop ends the node as a deploy does, which must take no longer than its
// drain, and begin no error.
func (n *node) stop() {
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // may have ended by now
	select {
	case <-n.done:
	case <-time.After(30 * time.Second):
		n.r.verdict.wrong(other, "a node still runs 30 s after SIGTERM")
		n.kill()
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		n.r.verdict.wrong(other, "a node ended with %d after SIGTERM", code)
	}
}

// freeze stands the process still for so long.
func (n *node) freeze(d time.Duration) {
	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		n.r.verdict.wrong(other, "SIGSTOP: %v", err)
	}
	n.r.last(d)
	if err := n.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		n.r.verdict.wrong(other, "SIGCONT: %v", err)
	}
}

// await asks until /readyz answers with a status.
func (n *node) await(status int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(n.r.ctx, limit)
	defer cancel()
	for {
		got, err := n.ask(ctx)
		if got == status {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("/readyz did not answer %d within %v; at last %d, %v", status, limit, got, err)
		case <-n.done:
			return errors.New("the process ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (n *node) ask(ctx context.Context) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url()+"/readyz", nil)
	if err != nil {
		return 0, err
	}
	resp, err := n.r.client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// metric is a number on the operator's listener, summed over its labels; 0 if
// the node cannot be asked.
func (n *node) metric(name string) float64 {
	resp, err := n.r.client.Get("http://" + n.admin + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		return 0
	}
	total := 0.0
	for line := range strings.Lines(text.String()) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if family, _, _ := strings.Cut(series, "{"); family == name {
			v, _ := strconv.ParseFloat(value, 64)
			total += v
		}
	}
	return total
}

// freeAddr is a loopback address that nobody listens on, below the ports that
// the kernel gives to outgoing connections: otherwise one of those could have
// the port of a killed node before the node is back.
func (r *rig) freeAddr() string {
	r.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(22000+rand.IntN(10000)))
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := ln.Close(); err == nil {
			return addr
		}
	}
	r.Fatalf("no free port on loopback")
	return ""
}
