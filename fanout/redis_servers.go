package fanout

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// servers is where rooms are: one Redis server, the one that Sentinel names at
// the moment, or the masters of a cluster. A server goes by its address.
type servers interface {
	// on runs f on the server that has a key. It tries again only where the
	// server is known not to have executed what f sent.
	on(ctx context.Context, key string, f func(*redis.Client) error) error
	// owner names the server that has a key; "" if that is not known yet.
	owner(key string) string
	// addresses names all servers that have keys.
	addresses() []string
	// refresh finds out anew which server has what.
	refresh(ctx context.Context) error
	// client is the connections to a server.
	client(address string) *redis.Client
	// drop replaces the connections to a server: after a link was found dead,
	// each of them may be dead the same way, and would cost somebody a
	// time-out. Commands under way fail.
	drop(address string)
	// sharded says that channels belong to servers as keys do.
	sharded() bool
	close() error
}

// theOnly is the address of the only server there is.
const theOnly = "redis"

// single is one server.
type single struct {
	dial func() *redis.Client
	now  atomic.Pointer[redis.Client]
}

func newSingle(dial func() *redis.Client) *single {
	s := &single{dial: dial}
	s.now.Store(dial())
	return s
}

func (s *single) on(_ context.Context, _ string, f func(*redis.Client) error) error {
	return f(s.now.Load())
}

func (s *single) owner(string) string           { return theOnly }
func (s *single) addresses() []string           { return []string{theOnly} }
func (s *single) refresh(context.Context) error { return nil }
func (s *single) client(string) *redis.Client   { return s.now.Load() }
func (s *single) sharded() bool                 { return false }
func (s *single) close() error                  { return s.now.Load().Close() }

func (s *single) drop(string) {
	old := s.now.Swap(s.dial())
	_ = old.Close() // whatever it says, nobody uses it any more
}

// publishCommand is the command by which scripts publish.
func publishCommand(s servers) string {
	if s.sharded() {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// send publishes outside of a script, and says how many have heard it.
func send(ctx context.Context, s servers, channel string, message []byte) (heard int64, err error) {
	err = s.on(ctx, channel, func(c *redis.Client) error {
		if s.sharded() {
			heard, err = c.SPublish(ctx, channel, message).Result()
			return err
		}
		heard, err = c.Publish(ctx, channel, message).Result()
		return err
	})
	return heard, err
}

// byServer sorts keys by the server that has them.
func byServer(s servers, keys []string) (map[string][]int, error) {
	sorted := map[string][]int{}
	for i, key := range keys {
		address := s.owner(key)
		if address == "" {
			return nil, errNoOwner
		}
		sorted[address] = append(sorted[address], i)
	}
	return sorted, nil
}

var errNoOwner = errors.New("no server of the cluster is known to have the key")

// clients is the connections to each server of a cluster.
type clients struct {
	dial func(address string) *redis.Client

	mu     sync.Mutex // guards the fields below
	open   map[string]*redis.Client
	closed bool
}

func (c *clients) to(address string) *redis.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	client := c.open[address]
	if client == nil {
		client = c.dial(address)
		if c.closed {
			_ = client.Close() // its commands fail, as they should
			return client
		}
		c.open[address] = client
	}
	return client
}

func (c *clients) drop(address string) {
	c.mu.Lock()
	old := c.open[address]
	delete(c.open, address)
	c.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
}

// keep closes the connections to all servers but these.
func (c *clients) keep(addresses []string) {
	c.mu.Lock()
	var old []*redis.Client
	for address, client := range c.open {
		if !slices.Contains(addresses, address) {
			old = append(old, client)
			delete(c.open, address)
		}
	}
	c.mu.Unlock()
	for _, client := range old {
		_ = client.Close()
	}
}

func (c *clients) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for _, client := range c.open {
		errs = append(errs, client.Close())
	}
	clear(c.open)
	return errors.Join(errs...)
}
