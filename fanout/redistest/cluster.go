package redistest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Slots is the number of hash slots of a Cluster.
const Slots = 16384

const formLimit = 30 * time.Second

// Cluster is a Redis Cluster whose nodes take one another for dead after 1 s.
type Cluster struct {
	Nodes []*Server // first the masters of the beginning, then their replicas

	t       T
	masters int
}

// StartCluster starts a Redis Cluster and returns when every node says that it
// is well and knows all the others: that takes about 2 s, for which masters that
// have just started accept nothing. Failover needs at least three masters, and a
// replica. The arguments are redis-server's, for all nodes; they win over ours,
// so that "--cluster-node-timeout", "5000" makes it calmer.
func StartCluster(t T, masters, replicasPerMaster int, args ...string) *Cluster {
	t.Helper()
	if masters < 1 || replicasPerMaster < 0 {
		t.Fatalf("redistest: a cluster of %d masters with %d replicas each: at least one master, please", masters, replicasPerMaster)
	}
	if password := valueOf(args, "requirepass"); password != "" {
		args = append([]string{"--masterauth", password}, args...)
	}
	c := &Cluster{Nodes: make([]*Server, masters*(1+replicasPerMaster)), t: t, masters: masters}
	err := each(c.Nodes, func(i int, _ *Server) (err error) {
		c.Nodes[i], err = launch(t, setup{cluster: true, args: args})
		return err
	})
	cleanUp(t, c.Nodes...)
	if err == nil {
		err = c.form()
	}
	if err != nil {
		t.Fatalf("redistest: starting a cluster of %d nodes: %v", len(c.Nodes), err)
	}
	return c
}

// form makes a cluster of nodes that know nothing.
func (c *Cluster) form() error {
	err := each(c.Nodes, func(i int, node *Server) error {
		// Distinct epochs from the start, since nodes that settle a tie of epochs
		// later look as if their slots had moved.
		if _, err := node.do("CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
		if i >= c.masters {
			return nil
		}
		first, end := i*Slots/c.masters, (i+1)*Slots/c.masters
		_, err := node.do("CLUSTER", "ADDSLOTSRANGE", first, end-1)
		return err
	})
	if err != nil {
		return err
	}
	// All meet all, rather than waiting for word to get around.
	err = each(c.Nodes, func(i int, node *Server) error {
		for _, other := range c.Nodes[:i] {
			if _, err := node.do("CLUSTER", "MEET", "127.0.0.1", other.port.number); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := each(c.Nodes[c.masters:], c.enlist); err != nil {
		return err
	}
	return poll(formLimit, agreeEvery, c.ready)
}

// enlist makes the i-th of the replicas follow its master, once it knows it.
func (c *Cluster) enlist(i int, node *Server) error {
	id, err := c.Nodes[i%c.masters].do("CLUSTER", "MYID")
	if err != nil {
		return err
	}
	return poll(formLimit, agreeEvery, func() error {
		_, err := node.do("CLUSTER", "REPLICATE", id)
		return err
	})
}

// ready says what is missing until the cluster is well: every node sees every
// slot served, by a master with all its replicas, and the replicas are fed.
func (c *Cluster) ready() error {
	return each(c.Nodes, func(_ int, node *Server) error {
		v, err := node.view()
		if err != nil {
			return err
		}
		if v.state != "ok" {
			return fmt.Errorf("%s: cluster_state is %q", node.Addr, v.state)
		}
		served := 0
		for _, r := range v.slots {
			served += r.End - r.Start + 1
			if len(r.Nodes) != len(c.Nodes)/c.masters {
				return fmt.Errorf("%s knows %d servers of slots %d-%d", node.Addr, len(r.Nodes), r.Start, r.End)
			}
		}
		if served != Slots {
			return fmt.Errorf("%s sees %d slots served", node.Addr, served)
		}
		return node.fed()
	})
}

// view is what one node believes of the cluster.
type view struct {
	id    string
	state string
	epoch int64 // of its own configuration; among two that claim a slot the higher wins
	slots []redis.ClusterSlot
}

func (s *Server) view() (v view, err error) {
	ctl, err := s.ctl()
	if err != nil {
		return v, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	id, info := ctl.ClusterMyID(ctx), ctl.ClusterInfo(ctx)
	slots := redis.NewClusterSlotsCmd(ctx, "cluster", "slots") // what clients go by
	_ = ctl.Process(ctx, slots)                                // the command keeps the error
	if err := errors.Join(id.Err(), info.Err(), slots.Err()); err != nil {
		return v, err
	}
	about := fields(info.Val())
	v = view{id: id.Val(), state: about["cluster_state"], slots: slots.Val()}
	v.epoch, err = strconv.ParseInt(about["cluster_my_epoch"], 10, 64)
	return v, err
}

// masterOf returns the id of the node that serves slot, "" if there is none.
func (v view) masterOf(slot int) string {
	for _, r := range v.slots {
		if r.Start <= slot && slot <= r.End && len(r.Nodes) > 0 {
			return r.Nodes[0].ID
		}
	}
	return ""
}

// Addrs returns the addresses of all nodes.
func (c *Cluster) Addrs() []string { return addrs(c.Nodes) }

// URL returns the nodes as --redis takes them.
func (c *Cluster) URL() string {
	u := url.URL{Scheme: "redis+cluster", Host: strings.Join(c.Addrs(), ",")}
	if password := c.Nodes[0].password; password != "" {
		u.User = url.UserPassword("", password)
	}
	return u.String()
}

// Client returns a new client of the whole cluster, closed with the test. It
// follows redirections and looks every second for what has changed.
func (c *Cluster) Client() *redis.ClusterClient {
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: c.Addrs(), Password: c.Nodes[0].password, ClusterStateReloadInterval: time.Second,
		DialTimeout: time.Second, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
	})
	c.t.Cleanup(func() { _ = client.Close() }) // fails only where the test closed it
	return client
}

// SlotOf returns the slot of a key.
func (c *Cluster) SlotOf(key string) int {
	c.t.Helper()
	for _, node := range c.Nodes {
		if !node.Running() {
			continue
		}
		slot, ok := node.Do("CLUSTER", "KEYSLOT", key).(int64)
		if ok {
			return int(slot)
		}
	}
	c.check("asking for the slot of a key", errors.New("no node runs"))
	return 0
}

// MasterOf returns the running node that serves slot; it waits until there is
// one, so after KillMaster it waits for the failover.
func (c *Cluster) MasterOf(slot int) *Server {
	c.t.Helper()
	var owner *Server
	err := poll(failoverLimit, agreeEvery, func() (err error) {
		owner, _, err = c.owner(slot)
		return err
	})
	c.check(fmt.Sprintf("looking for the master of slot %d", slot), err)
	return owner
}

// owner returns the running node that claims slot, by its own word, and its id.
// A node that was cut off may claim it still; the later claim counts.
func (c *Cluster) owner(slot int) (owner *Server, id string, err error) {
	var latest int64 = -1
	for _, node := range c.Nodes {
		if !node.Running() {
			continue
		}
		v, err := node.view()
		if err != nil {
			return nil, "", err
		}
		if v.masterOf(slot) == v.id && v.epoch > latest {
			owner, id, latest = node, v.id, v.epoch
		}
	}
	if owner == nil {
		return nil, "", fmt.Errorf("no running node serves slot %d", slot)
	}
	return owner, id, nil
}

// KillMaster kills the master of slot and returns it.
func (c *Cluster) KillMaster(slot int) *Server {
	c.t.Helper()
	master := c.MasterOf(slot)
	master.Kill()
	return master
}

// AwaitFailover waits until all running nodes are well and agree that slot is
// served by another one than old, which it returns.
func (c *Cluster) AwaitFailover(slot int, old *Server) *Server {
	c.t.Helper()
	owner, err := c.agreed(slot, func(owner *Server) bool { return owner != old })
	c.check(fmt.Sprintf("waiting until slot %d is not served by %s", slot, old.Addr), err)
	return owner
}

// AwaitReady waits until every node runs, is well and is known by all others: a
// dead master that was restarted is a replica that is fed, so that the next
// failover can begin.
func (c *Cluster) AwaitReady() {
	c.t.Helper()
	c.check("waiting for all to be well", poll(formLimit, agreeEvery, c.ready))
}

// agreed waits until all running nodes name the same master of slot, one that is
// wanted, and find the cluster well.
func (c *Cluster) agreed(slot int, wanted func(owner *Server) bool) (owner *Server, err error) {
	err = poll(failoverLimit, agreeEvery, func() error {
		var id string
		if owner, id, err = c.owner(slot); err != nil {
			return err
		}
		if !wanted(owner) {
			return fmt.Errorf("%s serves it", owner.Addr)
		}
		return each(c.Nodes, func(_ int, node *Server) error {
			if !node.Running() {
				return nil
			}
			v, err := node.view()
			if err == nil && (v.state != "ok" || v.masterOf(slot) != id) {
				err = fmt.Errorf("%s finds the cluster %q and the slot at %q", node.Addr, v.state, v.masterOf(slot))
			}
			return err
		})
	})
	return owner, err
}

func (c *Cluster) check(doing string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("redistest: cluster: %s: %v%s", doing, err, said(c.Nodes))
	}
}
