package fanout

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed scripts/swap.lua
	swapLua string
	//go:embed scripts/mark.lua
	markLua string
	//go:embed scripts/spend.lua
	spendLua string
)

// The scripts of the store; they never change.
var (
	swapScript  = redis.NewScript(swapLua)
	markScript  = redis.NewScript(markLua)
	spendScript = redis.NewScript(spendLua)
)

// The store's keys are one to a script, so that they may lie in any slot.
func (r *Redis) valueKey(key string) string  { return r.opt.Prefix + ":kv:" + key }
func (r *Redis) listKey(list string) string  { return r.opt.Prefix + ":list:" + list }
func (r *Redis) bucketKey(key string) string { return r.opt.Prefix + ":rate:" + key }

// Load implements Store.
func (r *Redis) Load(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	key = r.valueKey(key)
	var value []byte
	err := r.servers.on(ctx, key, func(c *redis.Client) (err error) {
		value, err = c.Get(ctx, key).Bytes()
		return err
	})
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, unavailable("loading", err)
	}
	return value, nil
}

// run runs a script that has one key, where the key is.
func (r *Redis) run(ctx context.Context, script *redis.Script, key string, args ...any) (answer int64, err error) {
	err = r.servers.on(ctx, key, func(c *redis.Client) (err error) {
		answer, err = script.Run(ctx, c, []string{key}, args...).Int64()
		return err
	})
	return answer, err
}

// Swap implements Store.
func (r *Redis) Swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	millis := (ttl + time.Millisecond - 1).Milliseconds()
	if millis <= 0 {
		value, millis = nil, 0
	}
	swapped, err := r.run(ctx, swapScript, r.valueKey(key), string(old), string(value), millis)
	if err != nil {
		return false, unavailable("swapping", err)
	}
	return swapped == 1, nil
}

// Mark implements Store.
func (r *Redis) Mark(ctx context.Context, list, member string, keep time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	at, err := r.run(ctx, markScript, r.listKey(list), member, keep.Milliseconds())
	if err != nil {
		return time.Time{}, unavailable("marking", err)
	}
	return time.UnixMilli(at), nil
}

// Marks implements Store.
func (r *Redis) Marks(ctx context.Context, list string, since time.Time) ([]Mark, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	key, from := r.listKey(list), strconv.FormatInt(max(0, since.UnixMilli()), 10)
	var got []redis.Z
	err := r.servers.on(ctx, key, func(c *redis.Client) (err error) {
		got, err = c.ZRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: from, Max: "+inf"}).Result()
		return err
	})
	if err != nil {
		return nil, unavailable("listing marks", err)
	}
	marks := make([]Mark, len(got))
	for i, z := range got {
		member, _ := z.Member.(string)
		marks[i] = Mark{member, time.UnixMilli(int64(z.Score))}
	}
	return marks, nil
}

// Spend implements Store. It takes one round trip to each server, however much
// was spent.
func (r *Redis) Spend(ctx context.Context, spent []Spending) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	keys := make([]string, len(spent))
	for i, s := range spent {
		keys[i] = r.bucketKey(s.Key)
	}
	sorted, err := byServer(r.servers, keys)
	if err != nil {
		return nil, unavailable("spending", err)
	}
	full := make([]time.Duration, len(spent))
	for address, mine := range sorted {
		pipe := r.servers.client(address).Pipeline()
		answers := make([]*redis.Cmd, len(mine))
		for i, k := range mine {
			answers[i] = spendScript.EvalSha(ctx, pipe, keys[k:k+1], spent[k].Cost.Microseconds(), spent[k].Most.Microseconds())
		}
		_, _ = pipe.Exec(ctx) // each answer has its own error
		for i, k := range mine {
			micros, err := answers[i].Int64()
			if elsewhere(err) {
				micros, err = r.run(ctx, spendScript, keys[k], spent[k].Cost.Microseconds(), spent[k].Most.Microseconds())
			}
			if err != nil {
				return nil, unavailable("spending", err)
			}
			full[k] = time.Duration(micros) * time.Microsecond
		}
	}
	return full, nil
}

// elsewhere says that a server has not run a script because it does not know
// it yet, or does not have the key any more.
func elsewhere(err error) bool {
	return redis.HasErrorPrefix(err, "NOSCRIPT") || redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK")
}
