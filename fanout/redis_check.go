package fanout

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// check looks at a server that the node has just connected to, and warns of
// what would lose rooms or stop publishers, with what to do about it. It
// writes to a room of its own that lives for a second.
func (r *Redis) check(ctx context.Context, c *redis.Client, canary string) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	for _, complaint := range []string{r.checkRights(ctx, c, canary), checkEviction(ctx, c), checkPersistence(ctx, c)} {
		if complaint != "" {
			r.opt.Logger.Warn(complaint)
		}
	}
}

// checkRights does once what publishing and reading do. The canary's name is
// one that the server has the slot of.
func (r *Redis) checkRights(ctx context.Context, c *redis.Client, canary string) string {
	_, tag, _ := strings.Cut(canary, "{")
	tag = "{" + strings.TrimSuffix(tag, "}") + "}"
	name := func(kind string) string { return r.opt.Prefix + ":" + kind + ":" + tag }
	keys := []string{name("log") + ":check", name("meta") + ":check", canary, name("idem") + ":check"}
	short := &publishSettings{publishCommand(r.servers), "1", "1000", "1000", "1000", "1000"}
	err := r.publish.alone(ctx, c, &publication{settings: short, keys: keys, args: []any{1, "", "00|1"}})
	if err == nil {
		err = r.resume.RunRO(ctx, c, keys[:2], 0, 1, 1, 1).Err()
	}
	if err == nil {
		err = spendScript.Run(ctx, c, []string{name("rate") + ":check"}, 0, 0).Err()
	}
	if err == nil {
		err = r.roll.list.RunRO(ctx, c, []string{name("pres") + ":nodes", name("pres") + ":users"}, 1).Err()
	}
	if err == nil && r.opt.Ack > 0 {
		err = c.Wait(ctx, 0, r.opt.Ack).Err()
	}
	if err == nil || !isDenied(err) {
		return "" // what else may be wrong shows by itself
	}
	return fmt.Sprintf("Redis does not let us do what we must (%v); give the user: ~%s:* &%s:* +@read +@write +@pubsub -@dangerous +eval +evalsha +eval_ro +evalsha_ro +script|load +script|exists +info +time +ping +wait +hello +client|setname", err, r.opt.Prefix, r.opt.Prefix)
}

func isDenied(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	text := reply.Error()
	return strings.Contains(text, "NOPERM") || strings.Contains(text, "The user executing the script")
}

// checkEviction complains of a policy by which Redis would delete rooms for
// want of memory. Each of our keys has a time to live, so that volatile-* are
// no better than allkeys-*.
func checkEviction(ctx context.Context, c *redis.Client) string {
	memory := infoOf(ctx, c, "memory")
	policy := memory["maxmemory_policy"]
	if policy == "" || policy == "noeviction" {
		return ""
	}
	return fmt.Sprintf("Redis may delete rooms when memory is short (maxmemory-policy %s); set noeviction, so that it refuses publications instead", policy)
}

// checkPersistence complains of a server that would come back empty.
func checkPersistence(ctx context.Context, c *redis.Client) string {
	persistence := infoOf(ctx, c, "persistence")
	if persistence == nil || persistence["aof_enabled"] == "1" {
		return ""
	}
	if save, err := c.ConfigGet(ctx, "save").Result(); err == nil && save["save"] != "" {
		return "Redis saves its data from time to time only (no appendonly), so that a crash loses the events since; clients will be told. Set appendonly yes to keep them"
	} else if err != nil {
		return "Redis runs without appendonly, so that a crash loses events; clients will be told. Set appendonly yes to keep them"
	}
	return "Redis keeps nothing on disk (no appendonly, no save), so that a restart loses every room; clients will be told. Set appendonly yes to keep them"
}

// infoOf reads a section of INFO; nil if that is not allowed.
func infoOf(ctx context.Context, c *redis.Client, section string) map[string]string {
	text, err := c.Info(ctx, section).Result()
	if err != nil {
		return nil
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}
