package redistest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestClusterFailsOver(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, 3, 1)
	client := c.Client()
	wantEqual(t, "nodes", len(c.Addrs()), 6)
	for i := range 30 {
		if err := client.Set(within(t, 5*time.Second), fmt.Sprint("k", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	slot := c.SlotOf("k1")
	master := c.MasterOf(slot)
	for _, node := range c.Nodes {
		if node.Info("replication")["role"] == "slave" {
			node.CatchUp(c.byPort(t, node.Info("replication")["master_port"]))
		}
	}

	dead := c.KillMaster(slot)
	wantEqual(t, "killed", dead, master)
	promoted := c.AwaitFailover(slot, dead)
	wantEqual(t, "master", c.MasterOf(slot), promoted)
	eventually(t, func() error {
		v, err := client.Get(within(t, time.Second), "k1").Result()
		if err == nil && v != "1" {
			err = fmt.Errorf("k1 is %q, want 1", v)
		}
		return err
	})

	dead.Restart()
	c.AwaitReady()
	wantEqual(t, "role of the old master", dead.Info("replication")["role"], "slave")
}

// byPort returns the node on that port.
func (c *Cluster) byPort(t *testing.T, port string) *Server {
	t.Helper()
	for _, node := range c.Nodes {
		if fmt.Sprint(node.port.number) == port {
			return node
		}
	}
	t.Fatalf("no node has port %s", port)
	return nil
}

func TestSlotMigrationKeepsTheKeys(t *testing.T) {
	t.Parallel()
	const keys = 250
	c := StartCluster(t, 3, 0)
	client := c.Client()
	ctx := within(t, 20*time.Second)
	for i := range keys {
		if err := client.Set(ctx, fmt.Sprintf("{a}%d", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	slot := c.SlotOf("{a}")
	from := c.MasterOf(slot)
	to := c.other(from)

	m := c.BeginMigration(slot, to)
	m.Move()
	wantKeys(t, ctx, client, keys) // by ASK
	// Written after the last key has left: it is created where the slot goes.
	if err := client.Set(ctx, "{a}late", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	m.Finish()
	wantEqual(t, "master", c.MasterOf(slot), to)
	wantEqual(t, "keys at the new master", to.Do("CLUSTER", "COUNTKEYSINSLOT", slot), any(int64(keys+1)))
	wantEqual(t, "keys at the old master", from.Do("CLUSTER", "COUNTKEYSINSLOT", slot), any(int64(0)))
	wantKeys(t, ctx, client, keys) // by MOVED

	c.MigrateSlot(slot, from)
	wantEqual(t, "master after the way back", c.MasterOf(slot), from)
	wantKeys(t, ctx, client, keys)
}

func wantKeys(t *testing.T, ctx context.Context, client *redis.ClusterClient, keys int) {
	t.Helper()
	for i := range keys {
		key := fmt.Sprintf("{a}%d", i)
		got, err := client.Get(ctx, key).Result()
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		wantEqual(t, key, got, fmt.Sprint(i))
	}
}

// other returns a master that is not s.
func (c *Cluster) other(s *Server) *Server {
	if c.Nodes[0] == s {
		return c.Nodes[1]
	}
	return c.Nodes[0]
}
