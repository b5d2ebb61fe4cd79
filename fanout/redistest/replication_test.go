package redistest

import "testing"

func TestReplicaFollowsAndStaysOneOverARestart(t *testing.T) {
	primary := Start(t)
	primary.Do("SET", "before", "1")
	replica := Replica(t, primary)
	primary.Do("SET", "after", "1")
	replica.CatchUp(primary)
	wantEqual(t, "keys of the replica", replica.Do("DBSIZE"), any(int64(2)))

	replica.Restart()
	wantEqual(t, "role after a restart", replica.Info("replication")["role"], "slave")
	eventually(t, replica.fed)
	wantEqual(t, "keys after a restart", replica.Do("DBSIZE"), any(int64(2)))
}

func TestDetachedReplicaLosesWhatCameAfter(t *testing.T) {
	primary := Start(t)
	replica := Replica(t, primary)
	primary.Do("RPUSH", "log", "a", "b")
	replica.CatchUp(primary)
	history := primary.Info("replication")["master_replid"]

	replica.Detach()
	primary.Do("RPUSH", "log", "c") // acknowledged
	wantEqual(t, "role when detached", replica.Info("replication")["role"], "slave")
	primary.Kill()
	replica.Promote()

	wantEqual(t, "entries after promotion", replica.Do("LLEN", "log"), any(int64(2)))
	if got := replica.Info("replication")["master_replid"]; got == history {
		t.Fatalf("master_replid is %s after a promotion too", got)
	}
	replica.Restart()
	wantEqual(t, "role after promotion and restart", replica.Info("replication")["role"], "master")

	primary.Restart()
	primary.Follow(replica)
	replica.Do("RPUSH", "log", "d")
	primary.CatchUp(replica)
	wantEqual(t, "entries of the old primary", primary.Do("LLEN", "log"), any(int64(1)))
}
