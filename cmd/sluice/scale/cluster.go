//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/cmd/sluice/internal/child"
	"sluice/fanout/redistest"
)

// cluster is a Redis and the nodes on it.
type cluster struct {
	redis int // its process
	nodes []*node
}

// node is `sluice serve` in a process of its own.
type node struct {
	addr  netip.AddrPort
	admin string // URL
	cmd   *exec.Cmd
	done  chan struct{} // closed when the process has ended and was waited for
}

const startLimit = 30 * time.Second

// startCluster starts everything, and has t end it.
func startCluster(ctx context.Context, t redistest.T, binary string, nodes int, args ...string) (*cluster, error) {
	server := redistest.Start(t)
	pid, err := strconv.Atoi(server.Info("server")["process_id"])
	if err != nil {
		return nil, fmt.Errorf("redis-server does not tell its process: %w", err)
	}
	c := &cluster{redis: pid}
	args = append([]string{"serve", "--redis", server.URL()}, args...)
	for range nodes {
		n, err := startNode(ctx, t, binary, args)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// startNode starts a node and returns when it listens.
func startNode(ctx context.Context, t redistest.T, binary string, args []string) (*node, error) {
	n := &node{done: make(chan struct{})}
	n.cmd = exec.Command(binary, append(args, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json",
		"--publish-rate", "0", "--new-rooms-rate", "0")...)
	n.cmd.Env = child.Environ()
	n.cmd.SysProcAttr = killedWithUs()
	said, err := n.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a node: %w", err)
	}
	serving, lines := make(chan announcement, 1), make(chan struct{})
	go func() { // ends with the process
		defer close(lines)
		for in := bufio.NewScanner(said); in.Scan(); {
			var a announcement
			if json.Unmarshal(in.Bytes(), &a) == nil && a.Msg == "serving" {
				serving <- a
			}
		}
	}()
	go func() { // likewise; Cleanup waits for both
		<-lines
		_ = n.cmd.Wait() // it is killed, which is no news
		close(n.done)
	}()
	t.Cleanup(n.kill)
	select {
	case a := <-serving:
		n.admin = a.Admin
		n.addr, err = netip.ParseAddrPort(strings.TrimPrefix(a.URL, "http://"))
		return n, err
	case <-n.done:
		return nil, errors.New("a node ended instead of serving")
	case <-time.After(startLimit):
		return nil, fmt.Errorf("a node does not serve within %v", startLimit)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// announcement is what a node logs when it listens.
type announcement struct {
	Msg, URL, Admin string
}

// kill ends the node as a crash does. It may be called again.
func (n *node) kill() {
	_ = n.cmd.Process.Kill() // may have ended by now
	<-n.done
}

// killedWithUs make the kernel kill a child should we be killed. Children are
// not told of an interrupt on the terminal: we end them.
func killedWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

func (c *cluster) addrs() (all []netip.AddrPort) {
	for _, n := range c.nodes {
		all = append(all, n.addr)
	}
	return all
}

func (c *cluster) pids() (all []int) {
	for _, n := range c.nodes {
		all = append(all, n.cmd.Process.Pid)
	}
	return all
}

// collectGarbage has the nodes do so, and give memory back, so that what is
// left is what they need.
func (c *cluster) collectGarbage(ctx context.Context) error {
	var tasks sync.WaitGroup
	failed := make([]error, len(c.nodes))
	for i, n := range c.nodes {
		tasks.Go(func() { failed[i] = ask(ctx, http.MethodPost, n.admin+"/debug/gc", nil) })
	}
	tasks.Wait()
	return errors.Join(failed...)
}

// publish posts a message, and fails unless it was taken.
func (n *node) publish(ctx context.Context, room string, message []byte) error {
	return ask(ctx, http.MethodPost, fmt.Sprintf("http://%v/rooms/%s/events", n.addr, room), message)
}

func ask(ctx context.Context, method, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}
