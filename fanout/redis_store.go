package fanout

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
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
	value, err := r.pool.client().Get(ctx, r.valueKey(key)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, unavailable("loading", err)
	}
	return value, nil
}

// Swap implements Store.
func (r *Redis) Swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	millis := (ttl + time.Millisecond - 1).Milliseconds()
	if millis <= 0 {
		value, millis = nil, 0
	}
	swapped, err := swapScript.Run(ctx, r.pool.client(), []string{r.valueKey(key)}, string(old), string(value), millis).Int()
	if err != nil {
		return false, unavailable("swapping", err)
	}
	return swapped == 1, nil
}

// Mark implements Store.
func (r *Redis) Mark(ctx context.Context, list, member string, keep time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	at, err := markScript.Run(ctx, r.pool.client(), []string{r.listKey(list)}, member, keep.Milliseconds()).Int64()
	if err != nil {
		return time.Time{}, unavailable("marking", err)
	}
	return time.UnixMilli(at), nil
}

// Marks implements Store.
func (r *Redis) Marks(ctx context.Context, list string, since time.Time) ([]Mark, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	from := strconv.FormatInt(max(0, since.UnixMilli()), 10)
	got, err := r.pool.client().ZRangeByScoreWithScores(ctx, r.listKey(list), &redis.ZRangeBy{Min: from, Max: "+inf"}).Result()
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

// Spend implements Store. It takes one round trip, however much was spent.
func (r *Redis) Spend(ctx context.Context, spent []Spending) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	client := r.pool.client()
	pipe := client.Pipeline()
	answers := make([]*redis.Cmd, len(spent))
	for i, s := range spent {
		answers[i] = spendScript.EvalSha(ctx, pipe, []string{r.bucketKey(s.Key)}, s.Cost.Microseconds(), s.Most.Microseconds())
	}
	_, _ = pipe.Exec(ctx) // each answer has its own error
	full := make([]time.Duration, len(spent))
	for i, s := range spent {
		answer := answers[i]
		if redis.HasErrorPrefix(answer.Err(), "NOSCRIPT") {
			answer = spendScript.Run(ctx, client, []string{r.bucketKey(s.Key)}, s.Cost.Microseconds(), s.Most.Microseconds())
		}
		micros, err := answer.Int64()
		if err != nil {
			return nil, unavailable("spending", fmt.Errorf("bucket %d of %d: %w", i+1, len(spent), err))
		}
		full[i] = time.Duration(micros) * time.Microsecond
	}
	return full, nil
}
