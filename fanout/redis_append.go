package fanout

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Append implements Log.
func (r *Redis) Append(ctx context.Context, room string, drafts []Draft) ([]Receipt, error) {
	if len(drafts) <= batchEvents {
		return r.appendSome(ctx, room, drafts)
	}
	receipts := make([]Receipt, 0, len(drafts))
	if err := r.CheckKeys(ctx, room, drafts); err != nil {
		return receipts, err
	}
	for len(receipts) < len(drafts) {
		n := min(batchEvents, len(drafts)-len(receipts))
		some, err := r.appendSome(ctx, room, drafts[len(receipts):][:n])
		if reused := (*KeyReusedError)(nil); errors.As(err, &reused) {
			reused.Index += len(receipts)
		}
		if err != nil {
			return receipts, err
		}
		receipts = append(receipts, some...)
	}
	return receipts, nil
}

// settingsOf gives what publish is told of a room's retention. It is the same
// for nearly all rooms, and made once for those.
func (r *Redis) settingsOf(keep Retention) *publishSettings {
	if r.settings != nil && keep.Events == r.keep.Events && keep.Age == r.keep.Age && keep.Keys == r.keep.Keys {
		return r.settings
	}
	millis := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	spare := keep.Age / 100 // so that the times are set anew a hundred times in the log's, however much comes
	return &publishSettings{
		publishCommand(r.servers), strconv.Itoa(keep.Events),
		millis(keep.Age), millis(keep.Age + spare), millis(keep.memory() + spare), millis(keep.Keys),
	}
}

// CheckKeys implements Log.
func (r *Redis) CheckKeys(ctx context.Context, room string, drafts []Draft) error {
	var keys []string
	var index []int
	for i := range drafts {
		if drafts[i].Key != "" {
			keys, index = append(keys, r.keyKey(room, &drafts[i])), append(index, i)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var known []any
	err := r.servers.on(ctx, keys[0], func(c *redis.Client) (err error) {
		known, err = c.MGet(ctx, keys...).Result()
		return err
	})
	if err != nil {
		return unavailable("looking keys up", err)
	}
	for i, value := range known {
		text, ok := value.(string)
		print, _, _ := strings.Cut(text, "|")
		if sum := fingerprint(&drafts[index[i]]); ok && print != hex.EncodeToString(sum[:]) {
			return &KeyReusedError{Index: index[i]}
		}
	}
	return nil
}

func (r *Redis) appendSome(ctx context.Context, room string, drafts []Draft) ([]Receipt, error) {
	now := time.Now()
	p := r.publicationOf(room, drafts, now)
	replicas := int64(0)
	err := r.servers.on(ctx, p.keys[0], func(c *redis.Client) (err error) {
		if r.opt.Ack > 0 {
			replicas, err = r.publishReplicated(ctx, c, p)
			return err
		}
		return r.publish.run(ctx, c, p)
	})
	if err != nil {
		return nil, unavailable("appending", err)
	}
	receipts, err := parseReceipts(p.answer, len(drafts), now.UnixMilli())
	for i := range receipts {
		receipts[i].Alone = r.opt.Ack > 0 && replicas == 0
	}
	return receipts, err
}

func (r *Redis) publicationOf(room string, drafts []Draft, now time.Time) *publication {
	p := &publication{settings: r.settingsOf(r.keep.of(room)), until: now.Add(commandTimeout)}
	p.keys = make([]string, 3, 3+len(drafts))
	p.keys[0], p.keys[1], p.keys[2] = r.logKey(room), r.metaKey(room), r.channel(room)
	p.args = make([]any, 1, 1+2*len(drafts))
	p.args[0] = len(drafts)
	at := now.UnixMilli()
	for i := range drafts {
		d, mark := &drafts[i], ""
		if d.Key != "" {
			sum := fingerprint(d)
			mark = hex.EncodeToString(sum[:]) + "|" + strconv.FormatInt(at, 10)
			p.keys = append(p.keys, r.keyKey(room, d))
		}
		record := record(at, d)
		p.size += len(record)
		p.args = append(p.args, record, mark)
	}
	return p
}

// publishReplicated appends and then waits, on the same connection, until a
// replica has what was appended (Redis, WAIT), or the time is over.
func (r *Redis) publishReplicated(ctx context.Context, c *redis.Client, p *publication) (replicas int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	conn := c.Conn()
	defer func() { _ = conn.Close() }() // it goes back to the pool
	if err := r.publish.alone(ctx, conn, p); err != nil {
		return 0, err
	}
	if replicas, err = conn.Wait(ctx, 1, r.opt.Ack).Result(); err != nil {
		return 0, nil // the event is appended; that nobody has a copy is all that can be said
	}
	return replicas, nil
}

func record(at int64, d *Draft) []byte {
	named := *d
	named.Type = cmp.Or(d.Type, "message")
	return appendRecord(make([]byte, 0, 64+len(d.From)+len(d.Data)), at, &named)
}

// parseReceipts reads what publish.lua answers for a publication of the given
// time. The receipts' epochs are parts of it.
func parseReceipts(answer string, drafts int, now int64) ([]Receipt, error) {
	if digits, reused := strings.CutPrefix(answer, "?"); reused {
		index, err := strconv.Atoi(digits)
		if err != nil || index < 0 || index >= drafts {
			return nil, unavailable("appending", errNoPosition)
		}
		return nil, &KeyReusedError{Index: index}
	}
	receipts := make([]Receipt, drafts)
	for i := range receipts {
		one, rest, _ := strings.Cut(answer, " ")
		epoch, one, _ := strings.Cut(one, "|")
		digits, time, replayed := strings.Cut(one, "|")
		seq, err := strconv.ParseUint(digits, 10, 64)
		at, errTime := now, error(nil)
		if replayed {
			at, errTime = strconv.ParseInt(time, 10, 64)
		}
		if err != nil || errTime != nil || seq == 0 || !validEpoch(epoch) {
			return nil, unavailable("appending", errNoPosition)
		}
		receipts[i] = Receipt{Position: Position{epoch, seq}, At: at, Replayed: replayed}
		answer = rest
	}
	return receipts, nil
}
