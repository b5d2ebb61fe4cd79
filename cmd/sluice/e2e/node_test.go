package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// node is a gateway: `sluice serve` in a process of its own, or rather a
// succession of them at one address.
type node struct {
	t    *testing.T
	addr string
	url  string
	args []string
	proc *process
}

// startNode runs a node and returns when it is ready. redis is empty for the
// memory log.
func startNode(t *testing.T, redis string, args ...string) *node {
	t.Helper()
	n := &node{t: t, addr: freeAddr(t)}
	n.url = "http://" + n.addr
	// All clients of a trial have one address, and do more than any client may.
	n.args = append([]string{"serve", "--listen", n.addr, "--admin=", "--publish-rate=0", "--room-publish-rate=0", "--new-rooms-rate=0", "--drain=2s"}, args...)
	if redis != "" {
		n.args = append(n.args, "--redis", redis)
	}
	n.start()
	return n
}

// start runs the node's next process.
func (n *node) start() {
	n.t.Helper()
	n.proc = launch(n.t, exec.Command(program, n.args...))
	n.t.Cleanup(n.stop)
	n.proc.await(n.t, n.proc.err, `"msg":"serving"`)
	n.awaitReady(http.StatusOK)
}

// kill ends the node's process as a crash does.
func (n *node) kill() {
	n.t.Helper()
	n.proc.kill(n.t)
}

// stop ends the node as a deploy does; one that was killed stays as it is.
func (n *node) stop() {
	n.t.Helper()
	if !n.proc.running() {
		return
	}
	n.proc.signal(n.t, syscall.SIGTERM)
	n.proc.wait(n.t, 0)
}

// awaitReady waits until /readyz answers with a status.
func (n *node) awaitReady(status int) {
	n.t.Helper()
	if err := awaitStatus(n.t.Context(), http.DefaultClient, n.url+"/readyz", status); err != nil {
		n.t.Fatal(err)
	}
}

// awaitStatus asks until the answer has a status. Nobody tells a client when a
// server begins to listen, or a balancer when a node is ready: all of them ask.
func awaitStatus(ctx context.Context, client *http.Client, url string, status int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		got, err := statusOf(ctx, client, url)
		if got == status {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s never answered %d; at last %d, %v", url, status, got, err)
		case <-every.C:
		}
	}
}

func statusOf(ctx context.Context, client *http.Client, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Close = true // so that none is left over
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// freeAddr is a loopback address that nobody listens on. It lies below the
// ports that the kernel gives to outgoing connections: otherwise one of those
// could have the port of a killed node before the node is back. Nor is any given
// twice, to tests that run beside each other.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(24000+rand.IntN(8000)))
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		if _, given := givenAddrs.LoadOrStore(addr, true); given {
			continue
		}
		return addr
	}
	t.Fatal("no free port on loopback")
	return ""
}

// givenAddrs are those that freeAddr gave.
var givenAddrs sync.Map

func urlsOf(nodes ...*node) []string {
	urls := make([]string, len(nodes))
	for i, n := range nodes {
		urls[i] = n.url
	}
	return urls
}

// beginningWith turns a list so that it begins with item i.
func beginningWith(i int, list []string) []string {
	i %= len(list)
	return slices.Concat(list[i:], list[:i])
}
