package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// masterName is what the sentinels call the primary they watch.
const masterName = "sluice"

const (
	// failoverLimit leaves room for a second vote when the first has no winner.
	failoverLimit = 30 * time.Second
	agreeEvery    = 20 * time.Millisecond
)

// Sentinels watch over a primary and its replicas.
type Sentinels struct {
	Master string    // name of the primary, as clients ask for it
	Nodes  []*Server // the sentinels; each can be killed, paused and restarted

	t       T
	watched []*Server // the primary and its replicas
}

// StartSentinels starts n sentinels of which quorum must agree that the primary
// is down, after 0.5 s of silence for the first and 0.2 s more for each other,
// and returns when all know each other and the replicas. Three with a quorum of
// two have promoted a replica 2 s after the primary's death; a dead primary that
// is restarted they turn into a replica after 4 s. The primary and its replicas
// stay the caller's:
//
//	primary := redistest.Start(t)
//	replica := redistest.Replica(t, primary)
//	s := redistest.StartSentinels(t, 3, 2, primary, replica)
func StartSentinels(t T, n, quorum int, primary *Server, replicas ...*Server) *Sentinels {
	t.Helper()
	s := &Sentinels{
		Master: masterName, Nodes: make([]*Server, n),
		t: t, watched: append([]*Server{primary}, replicas...),
	}
	err := each(s.Nodes, func(i int, _ *Server) (err error) {
		s.Nodes[i], err = launch(t, setup{sentinel: true, args: watch(primary, quorum, i)})
		return err
	})
	cleanUp(t, s.Nodes...)
	if err == nil {
		err = s.introduce(primary)
	}
	if err == nil {
		err = poll(failoverLimit, agreeEvery, s.ready)
	}
	if err != nil {
		t.Fatalf("redistest: starting %d sentinels: %v", n, err)
	}
	return s
}

// watch returns the configuration of the i-th sentinel. Each is 200 ms slower
// than the one before to take the primary for dead, and asks the others once a
// second. So they do not all stand for election at the same moment and vote for
// themselves, which costs 4 s a round: the one that completes the quorum stands
// alone.
func watch(primary *Server, quorum, i int) []string {
	args := []string{
		"--sentinel", "monitor", masterName, "127.0.0.1", strconv.Itoa(primary.port.number), strconv.Itoa(quorum),
		"--sentinel", "down-after-milliseconds", masterName, strconv.Itoa(500 + 200*i),
		"--sentinel", "failover-timeout", masterName, "2000",
	}
	if primary.password != "" {
		args = append(args, "--sentinel", "auth-pass", masterName, primary.password)
	}
	return args
}

// introduce tells each sentinel of the others, in the message by which they tell
// each other every 2 s, and shortens the pauses that make no difference but to
// those who wait. No shorter, since the periods are limits too: a sentinel undoes
// a promotion that it has not heard of for four messages (the news takes up to
// 1 s on a busy machine), and promotes no replica whose INFO is older than three
// periods, or five pings.
func (s *Sentinels) introduce(primary *Server) error {
	hellos := make([]string, len(s.Nodes))
	err := each(s.Nodes, func(i int, node *Server) error {
		_, err := node.do("SENTINEL", "DEBUG", "INFO-PERIOD", 400, "PING-PERIOD", 300, "PUBLISH-PERIOD", 750, "TILT-PERIOD", 1000)
		if err != nil {
			return err
		}
		id, err := node.do("SENTINEL", "MYID")
		hellos[i] = fmt.Sprintf("127.0.0.1,%d,%v,0,%s,127.0.0.1,%d,0", node.port.number, id, s.Master, primary.port.number)
		return err
	})
	if err != nil {
		return err
	}
	return each(s.Nodes, func(i int, node *Server) error {
		for j, hello := range hellos {
			if i == j {
				continue
			}
			if _, err := node.do("PUBLISH", "__sentinel__:hello", hello); err != nil {
				return err
			}
		}
		return nil
	})
}

// ready says what is missing until a failover could begin.
func (s *Sentinels) ready() error {
	return each(s.Nodes, func(_ int, node *Server) error {
		if _, err := node.do("SENTINEL", "CKQUORUM", s.Master); err != nil {
			return err
		}
		master, err := node.master()
		if err != nil {
			return err
		}
		if others := master["num-other-sentinels"]; others != strconv.Itoa(len(s.Nodes)-1) {
			return fmt.Errorf("sentinel %s knows %s others of %d", node.Addr, others, len(s.Nodes)-1)
		}
		replicas, err := node.replicas()
		if err != nil {
			return err
		}
		if len(replicas) != len(s.watched)-1 {
			return fmt.Errorf("sentinel %s knows %d replicas of %d", node.Addr, len(replicas), len(s.watched)-1)
		}
		for _, r := range replicas {
			if r["flags"] != "slave" || r["master-link-status"] != "ok" {
				return fmt.Errorf("sentinel %s takes replica %s for %q, link %q",
					node.Addr, r["name"], r["flags"], r["master-link-status"])
			}
		}
		return nil
	})
}

// master returns what a sentinel knows of the primary.
func (s *Server) master() (map[string]string, error) {
	ctl, err := s.ctl()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	cmd := redis.NewMapStringStringCmd(ctx, "sentinel", "master", masterName)
	_ = ctl.Process(ctx, cmd) // the command keeps the error
	return cmd.Result()
}

// replicas returns what a sentinel knows of the replicas.
func (s *Server) replicas() ([]map[string]string, error) {
	ctl, err := s.ctl()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	cmd := redis.NewMapStringStringSliceCmd(ctx, "sentinel", "replicas", masterName)
	_ = ctl.Process(ctx, cmd) // the command keeps the error
	return cmd.Result()
}

// Addrs returns the addresses of the sentinels.
func (s *Sentinels) Addrs() []string { return addrs(s.Nodes) }

// URL returns the sentinels and the primary's name as --redis takes them.
func (s *Sentinels) URL() string {
	u := url.URL{Scheme: "redis+sentinel", Host: strings.Join(s.Addrs(), ","), Path: s.Master}
	if password := s.watched[0].password; password != "" {
		u.User = url.UserPassword("", password)
	}
	return u.String()
}

// Client returns a new client that asks the sentinels for the primary, closed
// with the test.
func (s *Sentinels) Client() *redis.Client {
	c := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: s.Master, SentinelAddrs: s.Addrs(), Password: s.watched[0].password,
		MaxRetries: -1, DialTimeout: time.Second, ContextTimeoutEnabled: true, DisableIdentity: true,
	})
	s.t.Cleanup(func() { _ = c.Close() }) // fails only where the test closed it
	return c
}

// Primary returns the server that the sentinels send clients to, which may be
// dead as long as they have not noticed. It waits until they agree.
func (s *Sentinels) Primary() *Server {
	s.t.Helper()
	primary, err := s.agreed(nil)
	s.check("asking for the primary", err)
	return primary
}

// KillPrimary kills the primary and returns it.
func (s *Sentinels) KillPrimary() *Server {
	s.t.Helper()
	primary := s.Primary()
	primary.Kill()
	return primary
}

// Failover asks for a failover while the primary is well, waits for it and
// returns the new primary. What the old one acknowledges in between is lost.
func (s *Sentinels) Failover() *Server {
	s.t.Helper()
	old := s.Primary()
	s.check("asking for a failover", poll(failoverLimit, agreeEvery, func() error {
		_, err := s.Nodes[0].do("SENTINEL", "FAILOVER", s.Master)
		return err // while another one is on, or the replica's INFO is not fresh
	}))
	return s.AwaitFailover(old)
}

// AwaitFailover waits until every sentinel that runs sends clients to another
// server than old, and that one is a primary; it returns it.
func (s *Sentinels) AwaitFailover(old *Server) *Server {
	s.t.Helper()
	primary, err := s.agreed(old)
	s.check("waiting for a failover from "+old.Addr, err)
	return primary
}

// AwaitReady waits until the sentinels know each other and the primary, and all
// other servers they watch are replicas that are fed: a dead primary that was
// restarted has become one, so that the next failover can begin.
func (s *Sentinels) AwaitReady() {
	s.t.Helper()
	s.check("waiting for all to be well", poll(failoverLimit, agreeEvery, s.ready))
}

// agreed waits until all running sentinels name the same primary, not old.
func (s *Sentinels) agreed(old *Server) (primary *Server, err error) {
	err = poll(failoverLimit, agreeEvery, func() error {
		primary, err = s.named()
		switch {
		case err != nil:
			return err
		case primary == old:
			return fmt.Errorf("the sentinels still name %s", old.Addr)
		case old == nil:
			return nil // whoever it is, well or not
		}
		info, err := primary.info("replication")
		if err == nil && info["role"] != "master" {
			err = fmt.Errorf("the sentinels name %s, whose role is still %q", primary.Addr, info["role"])
		}
		return err
	})
	return primary, err
}

// named returns the primary that all running sentinels name.
func (s *Sentinels) named() (*Server, error) {
	votes := make(map[string]int)
	for _, node := range s.Nodes {
		if !node.Running() {
			continue
		}
		reply, err := node.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.Master)
		if err != nil {
			return nil, err
		}
		pair, _ := reply.([]any)
		if len(pair) != 2 {
			return nil, fmt.Errorf("sentinel %s: got %v, want host and port", node.Addr, reply)
		}
		votes[net.JoinHostPort(fmt.Sprint(pair[0]), fmt.Sprint(pair[1]))]++
	}
	if len(votes) == 0 {
		return nil, hopeless{errors.New("no sentinel runs")}
	}
	for _, watched := range s.watched {
		if votes[watched.Addr] > 0 && len(votes) == 1 {
			return watched, nil
		}
	}
	return nil, fmt.Errorf("the sentinels name %v", votes)
}

func (s *Sentinels) check(doing string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("redistest: sentinels: %s: %v%s", doing, err, said(s.Nodes))
	}
}

// said returns the last words of servers, for those who must find out why they
// did not do what they should.
func said(servers []*Server) string {
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "\n%s said:\n%s", s.Addr, s.current().tail())
	}
	return b.String()
}

func addrs(servers []*Server) []string {
	all := make([]string, len(servers))
	for i, s := range servers {
		all[i] = s.Addr
	}
	return all
}
