package fanout

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// cluster is the masters of a Redis Cluster, and which slots they have.
//
// go-redis has a client for clusters, but it sends a command again to another
// server when a connection fails, so that a publication can appear twice, and it
// learns of a failover late. So this keeps a client for each server, which
// never tries again, and a table of the slots, which it fetches each second,
// and corrects where a server says MOVED.
type cluster struct {
	seeds   []string
	clients clients
	table   atomic.Pointer[slotTable] // replaced, never changed; nil before the first refresh
	fixing  sync.Mutex                // one replaces the table at a time
}

type slotTable struct {
	masters []string
	owner   [slots]uint8 // index of the master, plus 1; 0 for none
}

const slots = 16384

func newCluster(template *redis.Options, seeds []string) *cluster {
	return &cluster{seeds: seeds, clients: clients{open: map[string]*redis.Client{}, dial: func(address string) *redis.Client {
		opt := *template
		opt.Addr = address
		if host, _, err := net.SplitHostPort(address); err == nil && opt.TLSConfig != nil {
			opt.TLSConfig = tlsFor(opt.TLSConfig, host)
		}
		return redis.NewClient(&opt)
	}}}
}

func tlsFor(c *tls.Config, host string) *tls.Config {
	c = c.Clone()
	c.ServerName = host
	return c
}

func (c *cluster) sharded() bool                       { return true }
func (c *cluster) client(address string) *redis.Client { return c.clients.to(address) }
func (c *cluster) drop(address string)                 { c.clients.drop(address) }
func (c *cluster) close() error                        { return c.clients.close() }

func (c *cluster) addresses() []string {
	if t := c.table.Load(); t != nil {
		return t.masters
	}
	return nil
}

func (c *cluster) owner(key string) string {
	t := c.table.Load()
	if t == nil {
		return ""
	}
	if i := t.owner[slotOf(key)]; i > 0 {
		return t.masters[i-1]
	}
	return ""
}

// on implements servers. While a slot moves, and until the new owner is
// known, a server refuses what concerns it before anything is executed.
func (c *cluster) on(ctx context.Context, key string, f func(*redis.Client) error) error {
	pause, until := 5*time.Millisecond, time.Now().Add(commandTimeout)
	for {
		address := c.owner(key)
		if address == "" {
			if err := c.refresh(ctx); err != nil {
				return err
			}
			if address = c.owner(key); address == "" {
				return errNoOwner
			}
		}
		err := f(c.client(address))
		if !c.redirected(err) || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// redirected says that err means to look elsewhere, or again, and takes note of where.
func (c *cluster) redirected(err error) bool {
	if _, moved := c.movedSlot(err); moved {
		return true
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	text := reply.Error()
	return strings.HasPrefix(text, "ASK ") || strings.HasPrefix(text, "TRYAGAIN")
}

// movedSlot says which slot a server says has moved, and takes note of where.
func (c *cluster) movedSlot(err error) (slot int, ok bool) {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return 0, false
	}
	moved, ok := strings.CutPrefix(reply.Error(), "MOVED ")
	if !ok {
		return 0, false
	}
	digits, address, _ := strings.Cut(moved, " ")
	slot, err = strconv.Atoi(digits)
	if err != nil || slot < 0 || slot >= slots {
		return 0, false
	}
	c.move(slot, address)
	return slot, true
}

// move corrects the table in one slot.
func (c *cluster) move(slot int, address string) {
	c.fixing.Lock()
	defer c.fixing.Unlock()
	old := c.table.Load()
	if old == nil {
		return
	}
	t := *old
	i := slices.Index(t.masters, address)
	if i < 0 && len(t.masters) < 255 {
		t.masters = append(slices.Clone(t.masters), address)
		i = len(t.masters) - 1
	}
	t.owner[slot] = uint8(i + 1)
	c.table.Store(&t)
}

// refresh asks every server that is known, and believes the first that answers.
func (c *cluster) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	known := slices.Concat(c.addresses(), c.seeds)
	slices.Sort(known)
	known = slices.Compact(known)
	answers := make(chan *slotTable, len(known))
	failures := make(chan error, len(known))
	var asking sync.WaitGroup
	for _, address := range known {
		asking.Go(func() {
			t, err := c.ask(ctx, address)
			if err != nil {
				failures <- err
				return
			}
			answers <- t
		})
	}
	defer asking.Wait()
	defer cancel()
	var err error
	for range known {
		select {
		case t := <-answers:
			c.fixing.Lock()
			c.table.Store(t)
			c.fixing.Unlock()
			c.clients.keep(slices.Concat(t.masters, c.seeds))
			return nil
		case err = <-failures:
		}
	}
	return fmt.Errorf("asking the cluster's servers for their slots: %w", err)
}

func (c *cluster) ask(ctx context.Context, address string) (*slotTable, error) {
	answer := redis.NewClusterSlotsCmd(ctx, "cluster", "slots") // CLUSTER SHARDS would show failed masters besides
	if err := c.client(address).Process(ctx, answer); err != nil {
		return nil, err
	}
	ranges := answer.Val()
	t := &slotTable{}
	for _, r := range ranges {
		if len(r.Nodes) == 0 {
			continue
		}
		master := r.Nodes[0].Addr
		if host, port, err := net.SplitHostPort(master); err == nil && host == "" {
			asked, _, _ := net.SplitHostPort(address) // a server that does not know its own name
			master = net.JoinHostPort(asked, port)
		}
		i := slices.Index(t.masters, master)
		if i < 0 {
			if len(t.masters) == 255 {
				return nil, errors.New("the cluster has more than 255 masters")
			}
			t.masters = append(t.masters, master)
			i = len(t.masters) - 1
		}
		for slot := max(0, r.Start); slot <= min(r.End, slots-1); slot++ {
			t.owner[slot] = uint8(i + 1)
		}
	}
	if len(t.masters) == 0 {
		return nil, errors.New("the cluster has no slots")
	}
	return t, nil
}

// slotOf is the slot of a key: CRC-16/XMODEM of what stands between the first
// braces, or of all of it (Redis Cluster specification, "Hash tags").
func slotOf(key string) int {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if j := strings.IndexByte(key[i+1:], '}'); j > 0 {
			key = key[i+1:][:j]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slots
}
