package fanout

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed scripts/resume.lua
	resumeLua string
	//go:embed scripts/purge.lua
	purgeLua string
)

// RedisOptions say where a Redis log is and what it keeps.
type RedisOptions struct {
	URL    string        // redis://, rediss://, redis+sentinel:// or redis+cluster://
	Prefix string        // of every key and channel; "sluice" if empty
	Keep   Retention     //
	Ack    time.Duration // how long an acknowledgement waits for a replica to have the event; not at all if zero
	Logger *slog.Logger  // slog.Default() if nil
}

// Redis is a log in Redis, shared by any number of nodes. Each room is a
// stream, with a hash that counts its events and tells its lineage; what is
// appended is published in the same script (scripts/publish.lua), so that no
// event is seen that is not kept, and none is kept that was not sent. Use
// OpenRedis.
//
// A node holds one subscriber connection to each Redis server that has rooms
// (subscriber.go); all else goes through a pool of connections.
type Redis struct {
	*subscriber
	opt      RedisOptions
	keep     Retention
	servers  servers
	publish  *publisher
	settings *publishSettings // what settingsOf gives for rooms of which nothing else is said
	resume   *redis.Script
	purge    *redis.Script
	roll     roll
}

// Limits of one exchange with Redis. A publication takes longer only if Redis
// is in trouble, and then the publisher is better told so.
const (
	commandTimeout = 2 * time.Second
	dialTimeout    = time.Second
	batchEvents    = 100 // events appended by one script, so that it never holds up Redis for long
	headsBatch     = 1000
)

// OpenRedis prepares a Redis log. It does not connect: Run does, and goes on
// trying for as long as it must.
func OpenRedis(opt RedisOptions) (*Redis, error) {
	opt.Prefix = cmp.Or(opt.Prefix, "sluice")
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	where, err := parseRedisURL(opt.URL)
	if err != nil {
		return nil, err
	}
	r := &Redis{
		opt:     opt,
		keep:    opt.Keep.withDefaults(),
		servers: where,
		publish: newPublisher(where.sharded()),
		resume:  redis.NewScript(resumeLua),
		purge:   redis.NewScript(purgeLua),
		roll:    newRoll(),
	}
	r.settings = r.settingsOf(r.keep)
	r.subscriber = newSubscriber(r)
	return r, nil
}

// Close gives up the connections. Run must have returned.
func (r *Redis) Close() error { return r.servers.close() }

func (r *Redis) logKey(room string) string  { return r.opt.Prefix + ":log:{" + room + "}" }
func (r *Redis) metaKey(room string) string { return r.opt.Prefix + ":meta:{" + room + "}" }
func (r *Redis) channel(room string) string { return r.opt.Prefix + ":ch:{" + room + "}" }

func (r *Redis) keyKey(room string, d *Draft) string {
	sum := sha256.Sum256([]byte(d.From + "\x00" + d.Key))
	return r.opt.Prefix + ":idem:{" + room + "}:" + hex.EncodeToString(sum[:16])
}

// roomOf is the inverse of channel.
func (r *Redis) roomOf(channel string) (string, bool) {
	s, ok := strings.CutPrefix(channel, r.opt.Prefix+":ch:{")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(s, "}")
}

func unavailable(doing string, err error) error {
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}

// Broadcast implements Log.
func (r *Redis) Broadcast(ctx context.Context, room string, d Draft) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	now := time.Now().UnixMilli()
	if _, err := send(ctx, r.servers, r.channel(room), append([]byte("0|"), record(now, &d)...)); err != nil {
		return 0, unavailable("broadcasting", err)
	}
	return now, nil
}

// Read implements Log.
func (r *Redis) Read(ctx context.Context, room string, after int64, limit int) (History, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	keys := []string{r.logKey(room), r.metaKey(room)}
	var answer []any
	err := r.servers.on(ctx, keys[0], func(c *redis.Client) (err error) {
		answer, err = r.resume.RunRO(ctx, c, keys, after, limit, r.keep.of(room).Events, maxPageBytes).Slice()
		return err
	})
	if err != nil {
		return History{}, unavailable("reading a room", err)
	}
	h, err := parseHistory(room, answer)
	if err != nil {
		return History{}, unavailable("reading a room", err)
	}
	return h, nil
}

func parseHistory(room string, answer []any) (History, error) {
	if len(answer) < 5 || len(answer)%3 != 2 {
		return History{}, fmt.Errorf("Redis answered %d values", len(answer))
	}
	epoch, _ := answer[0].(string)
	head, _ := answer[1].(int64)
	text, _ := answer[2].(string)
	oldest, _ := answer[3].(int64)
	if epoch == "" {
		return History{Extent: Extent{Oldest: 1}}, nil
	}
	lineage, err := ParseLineage(text)
	if err != nil {
		return History{}, err
	}
	if head < 0 || oldest < 1 || oldest > head+1 || lineage[len(lineage)-1].Epoch != epoch {
		return History{}, errors.New("what Redis keeps of the room does not fit together")
	}
	h := History{Extent: Extent{Lineage: lineage, Head: uint64(head), Oldest: uint64(oldest), Fenced: answer[4] == int64(1)}}
	for v := answer[5:]; len(v) > 0; v = v[3:] {
		seq, _ := v[0].(int64)
		epoch, _ := v[1].(string)
		text, _ := v[2].(string)
		e, err := parseRecord(room, []byte(text))
		if err != nil || seq <= 0 || !validEpoch(epoch) {
			e = unreadable(room)
		}
		e.Position = Position{epoch, uint64(seq)}
		h.Events = append(h.Events, e)
	}
	return h, nil
}

// unreadable stands in for an event whose record somebody has spoilt: it
// keeps its number, so that what follows is not taken for a hole.
func unreadable(room string) Event { return Event{Room: room, Type: "message"} }

// Heads implements Log.
func (r *Redis) Heads(ctx context.Context, rooms []string) ([]Position, error) {
	heads := make([]Position, 0, len(rooms))
	for len(heads) < len(rooms) {
		n := min(headsBatch, len(rooms)-len(heads))
		some, err := r.someHeads(ctx, rooms[len(heads):][:n])
		if err != nil {
			return nil, unavailable("reading heads", err)
		}
		heads = append(heads, some...)
	}
	return heads, nil
}

func (r *Redis) someHeads(ctx context.Context, rooms []string) ([]Position, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	keys := make([]string, len(rooms))
	for i, room := range rooms {
		keys[i] = r.metaKey(room)
	}
	sorted, err := byServer(r.servers, keys)
	if err != nil {
		return nil, err
	}
	heads := make([]Position, len(rooms))
	for address, mine := range sorted {
		pipe := r.servers.client(address).Pipeline()
		answers := make([]*redis.SliceCmd, len(mine))
		for i, k := range mine {
			answers[i] = pipe.HMGet(ctx, keys[k], "epoch", "seq")
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, err
		}
		for i, k := range mine {
			heads[k] = parseHead(answers[i].Val())
		}
	}
	return heads, nil
}

func parseHead(answer []any) Position {
	epoch, _ := answer[0].(string)
	text, _ := answer[1].(string)
	seq, err := strconv.ParseUint(text, 10, 64)
	if err != nil || !validEpoch(epoch) {
		return Origin
	}
	return Position{epoch, seq}
}

// Purge implements Log.
func (r *Redis) Purge(ctx context.Context, room string) (Position, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	keys := []string{r.logKey(room), r.metaKey(room), r.channel(room)}
	var answer []any
	err := r.servers.on(ctx, keys[0], func(c *redis.Client) (err error) {
		answer, err = r.purge.Run(ctx, c, keys, publishCommand(r.servers), r.keep.of(room).memory().Milliseconds(), newEpoch()).Slice()
		return err
	})
	if err != nil {
		return Position{}, unavailable("purging", err)
	}
	epoch, _ := answer[0].(string)
	seq, _ := answer[1].(int64)
	if epoch == "" {
		return Origin, nil
	}
	return Position{epoch, uint64(seq)}, nil
}

// Rooms implements Log. It scans, so that Redis is never held up; a room may
// come twice while rooms come and go. A page is a server and Redis's cursor
// there, "host:port/17".
func (r *Redis) Rooms(ctx context.Context, page string, limit int) ([]string, string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	all := slices.Clone(r.servers.addresses())
	slices.Sort(all)
	i, cursor := 0, uint64(0)
	if address, digits, ok := strings.Cut(page, "/"); ok {
		i = slices.Index(all, address)
		cursor, _ = strconv.ParseUint(digits, 10, 64)
	}
	if i < 0 || i >= len(all) {
		return nil, "", nil // a server that is gone, or a page that no answer has named
	}
	prefix := r.opt.Prefix + ":meta:{"
	keys, next, err := r.servers.client(all[i]).Scan(ctx, cursor, globEscape.Replace(prefix)+"*", int64(limit)).Result()
	if err != nil {
		return nil, "", unavailable("listing rooms", err)
	}
	rooms := make([]string, 0, len(keys))
	for _, key := range keys {
		if room, ok := strings.CutSuffix(strings.TrimPrefix(key, prefix), "}"); ok {
			rooms = append(rooms, room)
		}
	}
	if next == 0 {
		if i++; i == len(all) {
			return rooms, "", nil
		}
	}
	return rooms, all[i] + "/" + strconv.FormatUint(next, 10), nil
}

var globEscape = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`)
