package fanout

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed scripts/presence.lua
	presenceLua string
	//go:embed scripts/members.lua
	membersLua string
)

// roll is the scripts by which Redis keeps who is in a room.
type roll struct{ attend, list *redis.Script }

func newRoll() roll {
	return roll{attend: redis.NewScript(presenceLua), list: redis.NewScript(membersLua)}
}

// leavesAtOnce is how many members of a node that is gone one script has leave,
// so that it never holds up Redis for long.
const leavesAtOnce = 200

// leasesKept is how many times longer than a lease the keys live: members of
// nodes that all died are forgotten then.
const leasesKept = 10

func (r *Redis) nodesKey(room string) string { return r.opt.Prefix + ":pres:{" + room + "}:nodes" }
func (r *Redis) usersKey(room string) string { return r.opt.Prefix + ":pres:{" + room + "}:users" }
func (r *Redis) attendeesKey(room, node string) string {
	return r.opt.Prefix + ":pres:{" + room + "}:" + node
}

// Attend implements Attendant. All rooms travel together.
func (r *Redis) Attend(ctx context.Context, terms AttendTerms, rooms []Attendance) []Standing {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	keys := make([]string, len(rooms))
	for i := range rooms {
		keys[i] = r.usersKey(rooms[i].Room)
	}
	standings := make([]Standing, len(rooms))
	sorted, err := byServer(r.servers, keys)
	if err != nil {
		for i := range standings {
			standings[i].Err = unavailable("telling who is present", err)
		}
		return standings
	}
	var tasks sync.WaitGroup
	for address, mine := range sorted {
		tasks.Go(func() { r.attendOn(ctx, r.servers.client(address), terms, rooms, mine, standings) })
	}
	tasks.Wait()
	return standings
}

// attendOn tells one server of the rooms that it has. What it refuses, since
// it does not know the script or no longer has the room, it has not executed.
func (r *Redis) attendOn(ctx context.Context, c *redis.Client, terms AttendTerms, rooms []Attendance, mine []int, standings []Standing) {
	pipe := c.Pipeline()
	answers := make([]*redis.Cmd, len(mine))
	for i, k := range mine {
		keys, args := r.attendance(terms, &rooms[k])
		answers[i] = r.roll.attend.EvalSha(ctx, pipe, keys, args...)
	}
	_, _ = pipe.Exec(ctx) // each answer has its own error
	for i, k := range mine {
		values, err := answers[i].Slice()
		if refused(err) {
			keys, args := r.attendance(terms, &rooms[k])
			err = r.servers.on(ctx, keys[0], func(c *redis.Client) (err error) {
				values, err = r.roll.attend.Run(ctx, c, keys, args...).Slice()
				return err
			})
		}
		standings[k] = parseStanding(values, err)
	}
}

func refused(err error) bool {
	for _, prefix := range []string{"NOSCRIPT", "MOVED", "ASK", "TRYAGAIN"} {
		if err != nil && redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

func (r *Redis) attendance(terms AttendTerms, a *Attendance) (keys []string, args []any) {
	own := r.attendeesKey(a.Room, terms.Node)
	if terms.Node == "" {
		own = r.usersKey(a.Room) // which is not used; but a key must not be one of another room
	}
	keys = []string{r.nodesKey(a.Room), r.usersKey(a.Room), own, r.channel(a.Room)}
	budget := 0
	if terms.Judge {
		budget = leavesAtOnce
	}
	args = make([]any, 9, 9+3*len(a.Changes))
	args[0], args[1] = publishCommand(r.servers), terms.Node
	args[2], args[3] = terms.Lease.Milliseconds(), leasesKept*terms.Lease.Milliseconds()
	args[4], args[5], args[6] = terms.Names, a.Revision, a.Next
	args[7], args[8] = newEpoch(), budget
	for i := range a.Changes {
		c := &a.Changes[i]
		record := ""
		if c.Verb == Came {
			record = c.record()
		}
		args = append(args, string(c.Verb), c.User, record)
	}
	return keys, args
}

// record is how Redis keeps an attendee: "streams|at|info".
func (a *Attendee) record() string {
	return strconv.Itoa(a.Streams) + "|" + strconv.FormatInt(a.At, 10) + "|" + string(a.Info)
}

func parseAttendee(record string) (Attendee, bool) {
	streams, rest, _ := strings.Cut(record, "|")
	at, info, ok := strings.Cut(rest, "|")
	n, err := strconv.Atoi(streams)
	when, errAt := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || errAt != nil || n < 0 || !validInfo([]byte(info)) {
		return Attendee{}, false
	}
	a := Attendee{Streams: n, At: when}
	if info != "" {
		a.Info = []byte(info)
	}
	return a, true
}

func parseStanding(values []any, err error) Standing {
	if err != nil {
		return Standing{Err: unavailable("telling who is present", err)}
	}
	if len(values) != 6 {
		return Standing{Err: unavailable("telling who is present", fmt.Errorf("Redis answered %d values", len(values)))}
	}
	s := Standing{Version: parseVersion(values[0], values[1]), Refused: values[3] == int64(1), More: values[5] == int64(1)}
	count, _ := values[2].(int64)
	s.Count = int(count)
	s.Revision, _ = values[4].(string)
	return s
}

func parseVersion(generation, number any) Version {
	var v Version
	v.Generation, _ = generation.(string)
	digits, _ := number.(string)
	v.Number, _ = strconv.ParseUint(digits, 10, 64) // 0 is the version of nothing
	return v
}

// Attended implements Attendant.
func (r *Redis) Attended(ctx context.Context, node, room string) (map[string]Attendee, string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	key := r.attendeesKey(room, node)
	var kept map[string]string
	err := r.servers.on(ctx, key, func(c *redis.Client) (err error) {
		kept, err = c.HGetAll(ctx, key).Result()
		return err
	})
	if err != nil {
		return nil, "", unavailable("reading who is present here", err)
	}
	revision := kept[""]
	delete(kept, "")
	members := make(map[string]Attendee, len(kept))
	for user, record := range kept {
		members[user], _ = parseAttendee(record) // what cannot be read differs from what is right
	}
	return members, revision, nil
}

// Roster implements Attendant.
func (r *Redis) Roster(ctx context.Context, room string, names int) (Roster, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	keys := []string{r.nodesKey(room), r.usersKey(room)}
	var answer []any
	err := r.servers.on(ctx, keys[0], func(c *redis.Client) (err error) {
		answer, err = r.roll.list.RunRO(ctx, c, keys, names).Slice()
		return err
	})
	if err != nil {
		return Roster{}, unavailable("reading who is present", err)
	}
	roster, err := parseRoster(answer)
	if err != nil {
		return Roster{}, unavailable("reading who is present", err)
	}
	return roster, nil
}

func parseRoster(answer []any) (Roster, error) {
	if len(answer) < 4 {
		return Roster{}, fmt.Errorf("Redis answered %d values", len(answer))
	}
	roster := Roster{Version: parseVersion(answer[0], answer[1]), Lapsed: answer[3] == int64(1)}
	count, _ := answer[2].(int64)
	roster.Count = int(count)
	if roster.Generation == "" {
		roster.Members = []Present{}
		return roster, nil
	}
	if len(answer) == 4 {
		return roster, nil
	}
	users := pairs(answer[4])
	delete(users, "")
	infoAt := make(map[string]int64, len(users))
	present := make(map[string]*Present, len(users))
	roster.Members = make([]Present, 0, len(users))
	for user, counted := range users {
		_, since, _ := strings.Cut(counted, "|")
		at, err := strconv.ParseInt(since, 10, 64)
		if err != nil || !ValidUser(user) {
			continue // somebody else wrote it
		}
		roster.Members = append(roster.Members, Present{User: user, Since: at})
		present[user] = &roster.Members[len(roster.Members)-1]
	}
	for _, node := range answer[5:] {
		for user, record := range pairs(node) {
			a, ok := parseAttendee(record)
			p := present[user]
			if !ok || p == nil {
				continue
			}
			p.Streams += a.Streams
			if a.At >= infoAt[user] {
				p.Info, infoAt[user] = a.Info, a.At
			}
		}
	}
	sortPresent(roster.Members)
	return roster, nil
}

// pairs makes a map of what HGETALL gives within a script.
func pairs(v any) map[string]string {
	flat, _ := v.([]any)
	m := make(map[string]string, len(flat)/2)
	for ; len(flat) >= 2; flat = flat[2:] {
		field, _ := flat[0].(string)
		value, _ := flat[1].(string)
		m[field] = value
	}
	return m
}

var errMovement = errors.New("not word of who is present")

// parseMovement reads what presence.lua publishes, behind its "3|":
//
//	generation|number|count|kind|length of user|user info
//
// where kind is j for a join, l for a leave, and c where there are too many
// members to name one.
func parseMovement(room, s string) (Event, error) {
	var field [5]string
	for i := range field {
		var ok bool
		if field[i], s, ok = strings.Cut(s, "|"); !ok {
			return Event{}, errMovement
		}
	}
	number, err := strconv.ParseUint(field[1], 10, 64)
	count, errCount := strconv.Atoi(field[2])
	n, errLen := strconv.Atoi(field[4])
	if err != nil || errCount != nil || errLen != nil || count < 0 || n < 0 || n > len(s) || !validEpoch(field[0]) {
		return Event{}, errMovement
	}
	m := &movement{Version: Version{field[0], number}, count: count, user: s[:n]}
	if s[n:] != "" {
		m.info = []byte(s[n:])
	}
	kind := field[3]
	switch {
	case kind == "c" && m.user == "" && m.info == nil:
	case (kind == "j" || kind == "l") && ValidUser(m.user) && validInfo(m.info):
	default:
		return Event{}, errMovement
	}
	e := newMovement(room, kind == "j", m)
	e.At = time.Now().UnixMilli()
	return e, nil
}
