package fanout_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/fanout"
	"sluice/fanout/redistest"
)

func TestGraceIsTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPresenceNode(t, fanout.NewMemory(fanout.Retention{}), fanout.PresenceOptions{})
		ann := n.join("ann", "lobby")
		bob := n.join("bob", "lobby")
		synctest.Wait()
		bob.vanish()
		time.Sleep(9900 * time.Millisecond)
		bob = n.join("bob", "lobby")
		time.Sleep(time.Hour)
		synctest.Wait()
		if seen := ann.seen(); !slices.Equal(seen, []string{"+bob 2"}) {
			t.Errorf("a reconnect within 10 s shows as %q", seen)
		}
		bob.vanish()
		gone := time.Now()
		ann.awaitSeen("+bob 2", "-bob 1")
		if took := time.Since(gone); took < 10*time.Second || took > 10*time.Second+300*time.Millisecond {
			t.Errorf("the leave came after %v", took)
		}
		cyd := n.join("cyd", "lobby")
		said := time.Now()
		cyd.bye()
		ann.awaitSeen("+bob 2", "-bob 1", "+cyd 2", "-cyd 1")
		if took := time.Since(said); took > 0 {
			t.Errorf("who says goodbye leaves after %v", took)
		}
	})
}

func TestSinceIsWhenTheUserCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPresenceNode(t, fanout.NewMemory(fanout.Retention{}), fanout.PresenceOptions{})
		came := time.Now().UnixMilli()
		first := n.joinAs(&fanout.Member{User: "ann", Info: []byte(`{"tab":1}`)}, "lobby")
		time.Sleep(time.Minute)
		n.joinAs(&fanout.Member{User: "ann", Info: []byte(`{"tab":2}`)}, "lobby")
		first.vanish()
		time.Sleep(time.Minute)
		roster, err := n.hub.Members(context.Background(), "lobby")
		if err != nil || len(roster.Members) != 1 {
			t.Fatalf("the roster is %+v (%v)", roster, err)
		}
		if p := roster.Members[0]; p.Since != came || p.Streams != 1 || string(p.Info) != `{"tab":2}` {
			t.Errorf("ann is %+v %s, want her since %d, by one stream, with the info of the newest", p, p.Info, came)
		}
	})
}

func TestMemberMayBeInSomeOfItsRooms(t *testing.T) {
	onBothLogs(t, fast, func(t *testing.T, a, b *presenceNode) {
		rooms := []string{"lobby", "kitchen"}
		ann := a.joinAs(&fanout.Member{User: "ann", Rooms: []string{"lobby"}}, rooms...)
		bob := b.joinAs(&fanout.Member{User: "bob", Info: []byte(`{"name":"Bob"}`)}, rooms...)
		ann.awaitText(`data: {"room":"lobby","user":"bob","info":{"name":"Bob"},"count":2}` + "\n\n")
		bob.bye()
		ann.awaitSeen("+bob 2", "-bob 1")
		a.awaitMembers("kitchen")
		a.awaitMembers("lobby", "ann 1")
	})
}

func TestMemberThatCannotBeToldIsNone(t *testing.T) {
	onBothLogs(t, fast, func(t *testing.T, a, _ *presenceNode) {
		a.joinAs(&fanout.Member{User: "a\nb"}, "lobby").vanish()
		a.joinAs(&fanout.Member{User: "ann", Info: []byte("{\n}")}, "lobby")
		roster, err := a.hub.Members(context.Background(), "lobby")
		if err != nil || roster.Count != 1 || roster.Members[0].Info != nil {
			t.Errorf("the roster is %+v (%v), want ann without info", roster, err)
		}
	})
}

func TestPresenceOnACluster(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := redistest.StartCluster(t, 3, 0)
	a, b := newPresenceNode(t, redisLog(t, cluster.URL()), fast), newPresenceNode(t, redisLog(t, cluster.URL()), fast)
	rooms := make([]string, 12) // on all masters
	for i := range rooms {
		rooms[i] = fmt.Sprint("room", i)
	}
	ann := a.join("ann", rooms...)
	bob := b.join("bob", rooms...)
	for _, room := range rooms {
		ann.awaitText(`event: sluice.join` + "\n" + `data: {"room":"` + room + `","user":"bob","count":2}`)
		b.awaitMembers(room, "ann 1", "bob 1")
	}
	slot := cluster.SlotOf("sluice:pres:{room3}:users")
	from := cluster.MasterOf(slot)
	to := cluster.Nodes[0]
	if to == from {
		to = cluster.Nodes[1]
	}
	cluster.MigrateSlot(slot, to)
	<-time.After(2 * fast.Lease)
	bob.bye()
	for _, room := range rooms {
		ann.awaitText(`event: sluice.leave` + "\n" + `data: {"room":"` + room + `","user":"bob","count":1}`)
		a.awaitMembers(room, "ann 1")
	}
	if n := len(ann.seen()); n != 2*len(rooms) {
		t.Errorf("ann was told %d times, want %d: %q", n, 2*len(rooms), ann.seen())
	}
}

func TestPresenceNeedsNoMoreRightsThanTheRest(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "gw", "on", ">pw", "~sluice:*", "&sluice:*", "+@read", "+@write", "+@pubsub", "-@dangerous",
		"+eval", "+evalsha", "+eval_ro", "+evalsha_ro", "+script|load", "+script|exists", "+info", "+time", "+ping", "+wait", "+hello", "+client|setname")
	n := newPresenceNode(t, redisLog(t, "redis://gw:pw@"+server.Addr), fast)
	ann := n.join("ann", "lobby")
	n.join("bob", "lobby").bye()
	ann.awaitSeen("+bob 2", "-bob 1")
	n.awaitMembers("lobby", "ann 1")
}
