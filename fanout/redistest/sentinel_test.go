package redistest

import (
	"fmt"
	"testing"
	"time"
)

func TestSentinelsPromoteAReplicaOfADeadPrimary(t *testing.T) {
	t.Parallel()
	primary := Start(t)
	replica := Replica(t, primary)
	s := StartSentinels(t, 3, 2, primary, replica)
	wantEqual(t, "URL", s.URL(), fmt.Sprintf("redis+sentinel://%s,%s,%s/%s", s.Nodes[0].Addr, s.Nodes[1].Addr, s.Nodes[2].Addr, s.Master))
	wantEqual(t, "primary", s.Primary(), primary)
	client := s.Client()
	if err := client.Set(within(t, 5*time.Second), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	replica.CatchUp(primary)

	dead := s.KillPrimary()
	wantEqual(t, "killed", dead, primary)
	promoted := s.AwaitFailover(dead)
	wantEqual(t, "promoted", promoted, replica)
	wantEqual(t, "its role", promoted.Info("replication")["role"], "master")
	eventually(t, func() error {
		v, err := client.Get(within(t, time.Second), "k").Result()
		if err == nil && v != "v" {
			err = fmt.Errorf("k is %q, want v", v)
		}
		return err
	})

	dead.Restart()
	s.AwaitReady()
	wantEqual(t, "role of the old primary", dead.Info("replication")["role"], "slave")
	wantEqual(t, "primary after a failover on demand", s.Failover(), primary)
}

func TestSentinelsKeepThePrimaryWithoutAQuorum(t *testing.T) {
	t.Parallel()
	primary := Start(t)
	s := StartSentinels(t, 2, 2, primary, Replica(t, primary))
	s.Nodes[0].Kill()
	s.KillPrimary()
	eventually(t, func() error {
		m, err := s.Nodes[1].master()
		if err == nil && m["flags"] != "s_down,master,disconnected" && m["flags"] != "s_down,master" {
			err = fmt.Errorf("the last sentinel takes the primary for %q", m["flags"])
		}
		return err
	})
	wantEqual(t, "primary", s.Primary(), primary)
}
