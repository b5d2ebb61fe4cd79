//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is what the machine allows.
type machine struct {
	available   int64 // bytes of memory
	descriptors int   // of a process
	files       int64 // of all processes together, that are not open yet
}

func thisMachine() machine {
	m := machine{available: meminfo()["MemAvailable"]}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		m.descriptors = int(min(limit.Max, 1<<30))
	}
	var open, unused, most int64
	if text, err := os.ReadFile("/proc/sys/fs/file-nr"); err == nil {
		_, _ = fmt.Sscan(string(text), &open, &unused, &most) // of a text that cannot be read nothing is free
	}
	m.files = most - open
	return m
}

// What things take, generously: an estimate that turns out too small would have
// the kernel kill somebody.
const (
	bytesPerStream  = 13 << 10 // both ends in the kernel, the node's part and the client's
	bytesPerProcess = 30 << 20 // a node, or a crowd
	filesPerStream  = 2
	mostPerProcess  = 18_000 // streams
)

// layout is how streams are spread.
type layout struct {
	streams, nodes, crowds int
	perCrowd               int
}

// layout plans the trial. It refuses what the machine has no room for.
func (o *options) layout(m machine) (*layout, error) {
	if o.streams < 1 || o.messages < 1 || o.nodes < 0 || o.nodes == 1 {
		return nil, fmt.Errorf("-streams and -messages must be at least 1, -nodes at least 2, since one is killed")
	}
	per := min(mostPerProcess, m.descriptors*9/10)
	if per < 1 {
		return nil, fmt.Errorf("a process may have %d descriptors only; raise that (ulimit -n)", m.descriptors)
	}
	l := spread(o.streams, o.nodes, per)
	if alive := l.nodes - 1; (l.streams+alive-1)/alive > per {
		return nil, fmt.Errorf("%d nodes, one of which is killed, cannot hold %d streams: a process may have %d descriptors, so give it %d nodes",
			l.nodes, l.streams, m.descriptors, spread(o.streams, 0, per).nodes)
	}
	room := m.available - int64(o.leave*(1<<30))
	if need := l.bytes(); need > room {
		return nil, fmt.Errorf("%d streams take about %s of memory, and there are %s besides the %g GiB to be left (-leave); -streams %d fit",
			o.streams, size(need), size(max(room, 0)), o.leave, largest(per, func(l layout) bool { return l.bytes() <= room }))
	}
	if need := int64(l.streams) * filesPerStream; need > m.files {
		return nil, fmt.Errorf("%d streams take %d descriptors, and the system has %d left (sysctl fs.file-max); -streams %d fit",
			o.streams, need, m.files, m.files/filesPerStream)
	}
	return &l, nil
}

func spread(streams, nodes, per int) layout {
	full := (streams + per - 1) / per
	l := layout{streams: streams, nodes: nodes, crowds: full}
	if nodes == 0 {
		l.nodes = full + 1
	}
	l.perCrowd = (streams + full - 1) / full
	return l
}

// bytes is about what it all takes.
func (l layout) bytes() int64 {
	return int64(l.streams)*bytesPerStream + int64(l.nodes+l.crowds)*bytesPerProcess
}

// largest is how many streams fit, to a thousand or so.
func largest(per int, fits func(layout) bool) int {
	n := 0
	for step := 1 << 24; step >= 1000; step /= 2 {
		if fits(spread(n+step, 0, per)) {
			n += step
		}
	}
	return n / 1000 * 1000
}

// meminfo is the machine's memory, in bytes.
func meminfo() map[string]int64 { return kilobytes("/proc/meminfo") }

// kilobytes reads a file of /proc with lines like "Name: 123 kB".
func kilobytes(file string) map[string]int64 {
	sizes := map[string]int64{}
	text, err := os.ReadFile(file)
	if err != nil {
		return sizes // a process that has ended takes nothing
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
			sizes[strings.TrimSuffix(f[0], ":")] = n << 10
		}
	}
	return sizes
}

// memory is how much is in use, in bytes.
type memory struct {
	slab   int64 // of the kernel: sockets, files and what belongs to them
	tcp    int64 // of the kernel: what is on its way
	nodes  int64 // of the nodes' processes, what they share counted once
	rss    int64 // of the nodes' processes, what they share counted for each
	crowds int64 // of the clients' processes
}

func (m memory) since(before memory) memory {
	return memory{m.slab - before.slab, m.tcp - before.tcp, m.nodes - before.nodes, m.rss - before.rss, m.crowds - before.crowds}
}

func memoryOf(nodes, crowds []int) memory {
	m := memory{slab: meminfo()["Slab"], tcp: tcpMemory()}
	for _, pid := range nodes {
		sizes := kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		m.nodes += sizes["Pss"]
		m.rss += sizes["Rss"]
	}
	for _, pid := range crowds {
		m.crowds += kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid))["Pss"]
	}
	return m
}

func tcpMemory() int64 {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nTCP:")
	rest, _, _ = strings.Cut(rest, "\n")
	_, pages, _ := strings.Cut(rest, " mem ")
	n, _ := strconv.ParseInt(strings.TrimSpace(pages), 10, 64)
	return n * int64(os.Getpagesize())
}

// cpuOf is the CPU time that processes have used, by the scheduler's own
// count, which is finer than the clock ticks of stat. A process that has ended
// counts for nothing.
func cpuOf(pids ...int) (total time.Duration) {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is good
		for _, file := range threads {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // the thread has ended
			}
			var ran int64
			if _, err := fmt.Sscan(string(text), &ran); err == nil {
				total += time.Duration(ran)
			}
		}
	}
	return total
}

// size prints bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
