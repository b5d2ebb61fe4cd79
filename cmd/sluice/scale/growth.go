//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"sluice/cmd/sluice/internal/bench"
	"sluice/fanout/redistest"
)

// growthFor is how long is published; before that, half as long is watched what
// nothing costs.
const growthFor = 10 * time.Second

// measureGrowth measures each load of the axes that are wanted.
func (o *options) measureGrowth(ctx context.Context, wanted *regexp.Regexp, line *status) (results []result, err error) {
	for _, axis := range axes {
		if !wanted.MatchString(axis.name) {
			continue
		}
		for _, l := range axis.loads {
			r := &growthResult{Kind: "growth", Axis: axis.name, Value: l.value(axis.name), load: l}
			failed := redistest.Run(nil, func(t redistest.T) { err = o.grow(ctx, t, r, growthFor, line) })
			if err = errors.Join(failed, err); err != nil {
				return results, fmt.Errorf("%s %d: %w", axis.name, r.Value, err)
			}
			results = append(results, r)
		}
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("-growth %v names none of the axes: rooms, rate, payload, nodes", wanted)
	}
	return results, nil
}

func (l load) value(axis string) int {
	return map[string]int{"rooms": l.Rooms, "rate": int(l.Rate), "payload": l.Payload, "nodes": l.Nodes}[axis]
}

// grow measures one load.
func (o *options) grow(ctx context.Context, t redistest.T, r *growthResult, length time.Duration, line *status) error {
	c, err := startCluster(ctx, t, o.binary, r.Nodes, "--heartbeat", "1h")
	if err != nil {
		return err
	}
	m := &meter{cluster: c}
	report, err := bench.Run(ctx, bench.Config{
		Subscribe: "http://" + c.nodes[0].addr.String() + "/rooms/{room}/events",
		Publish:   "http://" + c.nodes[0].addr.String() + "/rooms/{room}/events",
		Nodes:     c.addrs(), Streams: r.Streams, Rooms: r.Rooms, Rate: r.Rate, Payload: r.Payload,
		Publishers: min(16, max(4, int(r.Rate/50))), Settle: length / 2, Duration: length,
		Stage: func(stage string) {
			line.show(r.Axis, "%d: %s", r.Value, stage)
			switch stage {
			case "settling", "measuring", "ended":
				m.note()
			}
		},
	})
	if err != nil {
		return err
	}
	if len(m.notes) != 3 {
		return errors.New("the measurement was cut short")
	}
	r.fill(report, m.notes)
	if !r.Faultless {
		return fmt.Errorf("the gateway did not pass: %+v, %v", report.Verdict, report.Errors)
	}
	return nil
}

// meter notes what the servers have used.
type meter struct {
	cluster *cluster
	notes   []used
}

type used struct {
	at           time.Time
	nodes, redis time.Duration
}

func (m *meter) note() {
	m.notes = append(m.notes, used{time.Now(), cpuOf(m.cluster.pids()...), cpuOf(m.cluster.redis)})
}

// fill makes a result of what bench saw, and of what was used before
// publishing, at its begin and at its end.
func (r *growthResult) fill(report *bench.Report, notes []used) {
	idle := func(of func(used) time.Duration) float64 { // a share
		return float64(of(notes[1])-of(notes[0])) / float64(notes[1].at.Sub(notes[0].at))
	}
	net := func(of func(used) time.Duration) float64 { // µs
		took := notes[2].at.Sub(notes[1].at)
		return micros(of(notes[2])-of(notes[1])) - idle(of)*micros(took)
	}
	nodes, redis := func(u used) time.Duration { return u.nodes }, func(u used) time.Duration { return u.redis }
	r.Events, r.Deliveries = report.Published.Count, report.Delivered.Count
	r.IdleCPU = 1000 * (idle(nodes) + idle(redis))
	r.CPU, r.RedisCPU = net(nodes)/float64(max(1, r.Deliveries)), net(redis)/float64(max(1, r.Deliveries))
	r.EventCPU = (net(nodes) + net(redis)) / float64(max(1, r.Events))
	r.P50, r.P99 = report.Latency.P50, report.Latency.P99
	r.Faultless = report.OK() && r.Deliveries == report.Delivered.Due
}
