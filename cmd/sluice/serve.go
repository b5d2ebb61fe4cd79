package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"sluice/fanout"
	"sluice/handlers"
	"sluice/handlers/auth"
	"sluice/static"
)

// serveCmd is a node of the gateway.
type serveCmd struct {
	Listen string `help:"Address of the public listener." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	Admin  string `help:"Address of the operator's listener: metrics, profiles. Empty is off." default:"127.0.0.1:8081" placeholder:"HOST:PORT"`

	NodeName  string `help:"What the dashboard calls this node. The name of its machine and its port, if left out." placeholder:"NAME"`
	ReusePort bool   `help:"Let another process listen at the same addresses; it gets all new connections, until this one has ended. For taking over without a moment in which nobody listens."`

	Redis       string `help:"Where rooms are kept: redis://, rediss://, redis+sentinel://h1:26379,h2:26379/master. Empty: in memory, for one node." placeholder:"URL"`
	RedisPrefix string `help:"What every key and channel in Redis begins with." default:"sluice" placeholder:"NAME"`

	Ack        string        `help:"When a publication counts as done: memory, when the primary has it; replicated, when a replica has it too." enum:"memory,replicated" default:"memory" placeholder:"memory|replicated"`
	AckTimeout time.Duration `help:"How long a publication waits for a replica; if none has it by then, the answer is 202 and says so." default:"200ms" placeholder:"TIME"`

	HistoryEvents int           `help:"How many events a room keeps." default:"1000" placeholder:"N" reload:""`
	HistoryAge    time.Duration `help:"How long a room keeps them after the last one." default:"24h" placeholder:"TIME" reload:""`
	RingMemory    size          `help:"Memory for the newest events of all rooms." default:"256MiB" placeholder:"SIZE"`
	MaxBody       size          `help:"Largest data of one event." default:"64KiB" placeholder:"SIZE" reload:""`

	MaxRoomsPerStream int `help:"Most rooms of one stream." default:"50" placeholder:"N" reload:""`
	MaxMembers        int `help:"Most members of a room that are named; where there are more, they are counted only." default:"1000" placeholder:"N"`

	Heartbeat    time.Duration `help:"How long a stream may be silent before it is sent a heartbeat." default:"15s" placeholder:"TIME" reload:""`
	Retry        time.Duration `help:"After about how long clients reconnect." default:"2s" placeholder:"TIME" reload:""`
	Padding      size          `help:"How much a stream sends at once, for what on its way holds back little." default:"2KiB" placeholder:"SIZE" reload:""`
	MaxAge       time.Duration `help:"After about how long a stream ends by itself. 0 is never." default:"1h" placeholder:"TIME" reload:""`
	WriteTimeout time.Duration `help:"How long a reader may take nothing before its stream is ended." default:"30s" placeholder:"TIME"`
	Framing      string        `help:"How streams are framed: chunked, or close, which an HAProxy in front needs unless it has option http-no-delay." enum:"chunked,close" default:"chunked" placeholder:"chunked|close"`
	Drain        time.Duration `help:"How long a node that is told to end takes to send its streams away." default:"10s" placeholder:"TIME"`

	accessFlags

	CORSOrigin []string `name:"cors-origin" help:"Origin whose pages may use the gateway, besides its own. May be repeated." placeholder:"ORIGIN"`
	TLSCert    string   `name:"tls-cert" help:"Certificate chain, PEM, to serve TLS and HTTP/2." type:"existingfile" placeholder:"FILE" reload:""`
	TLSKey     string   `name:"tls-key" help:"Its key, PEM." type:"existingfile" placeholder:"FILE" reload:""`

	OTLPEndpoint string  `name:"otlp-endpoint" help:"Collector of traces, by OTLP over HTTP, like http://127.0.0.1:4318. Off, unless this or a variable of OpenTelemetry's names one." placeholder:"URL"`
	TraceSample  float64 `help:"Part of the publications that are traced; one that belongs to a trace already goes by that." default:"0.01" placeholder:"N"`
	TraceRooms   bool    `help:"Spans name the room."`

	LogRequests string `help:"Requests that have a line in the log: off, sampled (one in a hundred, and those that failed here), or all." enum:"off,sampled,all" default:"off" placeholder:"off|sampled|all" reload:""`

	LogFormat string `help:"text or json; text on a terminal, else json, if left out." enum:"auto,text,json" default:"auto" placeholder:"text|json"`
	LogLevel  string `help:"debug, info, warn or error." enum:"debug,info,warn,error" default:"info" placeholder:"LEVEL" reload:""`
}

// defaultAdmin is shared by all nodes that say nothing else; on one machine
// only the first of them gets it.
const defaultAdmin = "127.0.0.1:8081"

// Run serves until ctx ends and the node has drained.
func (c *serveCmd) Run(ctx context.Context, p *process, line *commandLine) error {
	if err := c.check(); err != nil {
		return err
	}
	n := &node{cmd: c, process: p, begun: line, line: line, level: &slog.LevelVar{}}
	n.level.Set(c.level())
	n.logger = c.logger(p, n.level)
	cfg, err := c.gatewayConfig(line.file, n.logger)
	if err != nil {
		return err
	}
	pair, err := loadCertificate(c)
	if err != nil {
		return &usageError{err.Error()}
	}
	n.certificate.now.Store(pair)
	n.keep.set(c, line.file)
	log, closeLog, err := c.openLog(n.logger, n.keep.all())
	if err != nil {
		return &usageError{err.Error()}
	}
	defer closeLog()
	if n.verifier, err = c.verifier(n.logger); err != nil {
		return err
	}
	if n.verifier != nil {
		defer n.verifier.Close()
	}
	cfg.Verifier = n.verifier
	opt := fanout.Options{
		RingMemory: int(c.RingMemory), Keep: n.keep.all(), Logger: n.logger, Presence: fanout.PresenceOptions{Names: c.MaxMembers},
	}
	if cfg.Tracer, err = c.tracer(ctx, p, n.logger); err != nil {
		return err
	}
	if cfg.Tracer != nil {
		opt.Traced = cfg.Tracer.FannedOut
		defer func() { _ = cfg.Tracer.Close() }() // what the collector does not take is lost
	}
	n.hub = fanout.NewHub(log, opt)
	n.gateway = handlers.NewGateway(n.hub, cfg)
	return n.serve(ctx)
}

func (c *serveCmd) check() error {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return usagef("--tls-cert and --tls-key go together")
	}
	trusted := http.NewCrossOriginProtection()
	for _, origin := range c.CORSOrigin {
		if err := trusted.AddTrustedOrigin(origin); err != nil {
			return usagef("--cors-origin: %v; an origin is written like https://app.example", err)
		}
	}
	if err := c.accessFlags.check(); err != nil {
		return err
	}
	for _, limit := range []struct {
		name string
		ok   bool
	}{
		{"--history-events", c.HistoryEvents > 0}, {"--history-age", c.HistoryAge > 0}, {"--ring-memory", c.RingMemory > 0},
		{"--max-body", c.MaxBody > 0}, {"--max-rooms-per-stream", c.MaxRoomsPerStream > 0}, {"--max-members", c.MaxMembers > 0}, {"--heartbeat", c.Heartbeat > 0},
		{"--retry", c.Retry > 0}, {"--write-timeout", c.WriteTimeout > 0}, {"--max-age", c.MaxAge >= 0}, {"--drain", c.Drain >= 0}, {"--ack-timeout", c.AckTimeout > 0},
		{"--trace-sample", c.TraceSample >= 0},
	} {
		if !limit.ok {
			return usagef("%s is too small", limit.name)
		}
	}
	return nil
}

func (c *serveCmd) level() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // kong has checked it
	return level
}

func (c *serveCmd) logger(p *process, level slog.Leveler) *slog.Logger {
	opt := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "text" || c.LogFormat == "auto" && isTerminal(p.stderr) {
		return slog.New(slog.NewTextHandler(p.stderr, opt))
	}
	return slog.New(slog.NewJSONHandler(p.stderr, opt))
}

func (c *serveCmd) openLog(logger *slog.Logger, keep fanout.Retention) (log fanout.Log, closeLog func(), err error) {
	if c.Redis == "" {
		return fanout.NewMemory(keep), func() {}, nil
	}
	opt := fanout.RedisOptions{URL: c.Redis, Prefix: c.RedisPrefix, Keep: keep, Logger: logger}
	if c.Ack == "replicated" {
		opt.Ack = c.AckTimeout
	}
	hearRedis(logger)
	redis, err := fanout.OpenRedis(opt)
	if err != nil {
		return nil, nil, fmt.Errorf("--redis: %w", err)
	}
	return redis, func() { _ = redis.Close() }, nil // every connection is closed, whatever it says
}

func (c *serveCmd) gatewayConfig(file *configFile, logger *slog.Logger) (handlers.Config, error) {
	padding := int(c.Padding)
	if padding == 0 {
		padding = -1
	}
	cfg := handlers.Config{
		MaxBody: int64(c.MaxBody), MaxRooms: c.MaxRoomsPerStream,
		Heartbeat: c.Heartbeat, Retry: c.Retry, Padding: padding, MaxAge: c.MaxAge,
		Node: c.nodeName(), CloseFraming: c.Framing == "close", WriteTimeout: c.WriteTimeout, Origins: c.CORSOrigin, Logger: logger, Version: version(),
		Pages: static.Handler(), PagePaths: static.Paths(),
		LogRequests: map[string]handlers.RequestLog{"sampled": handlers.LogSomeRequests, "all": handlers.LogAllRequests}[c.LogRequests],
	}
	return cfg, c.configure(&cfg, file)
}

// nodeName tells nodes apart for people, as far as their names do.
func (c *serveCmd) nodeName() string {
	if c.NodeName != "" {
		return c.NodeName
	}
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	if _, port, err := net.SplitHostPort(c.Listen); err == nil && port != "0" {
		return net.JoinHostPort(host, port)
	}
	return host
}

// node is a gateway that runs.
type node struct {
	cmd      *serveCmd // as it was started
	process  *process
	begun    *commandLine // with which it was started
	line     *commandLine // that holds now
	hub      *fanout.Hub
	gateway  *handlers.Gateway
	verifier *auth.Verifier // nil if the gateway is open
	logger   *slog.Logger

	level       *slog.LevelVar
	keep        retention
	certificate certificate
}

// serve listens until ctx ends, or something fails, and then drains. When it
// returns, nothing of the node runs any more.
func (n *node) serve(ctx context.Context) error {
	public, err := n.listen(ctx)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	admin, err := n.listenAdmin(ctx)
	if err != nil {
		_ = public.Close()
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	hubCtx, stopHub := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = n.hub.Run(hubCtx) }) // which ends when it is told to, only
	tasks.Go(func() { n.gateway.Run(hubCtx) })
	tasks.Go(func() { paceGarbage(hubCtx, n.hub.Stats().Published.Load) })
	tasks.Go(func() { n.reloadWhenTold(hubCtx) })
	front := newServer(handlers.NewServer(n.gateway.Handler(), n.logger), n.gateway.Guard(public, descriptors()))
	servers := []*server{front}
	tasks.Go(func() { cancel(front.serve(&n.certificate)) })
	if admin != nil {
		back := newServer(handlers.NewServer(n.gateway.AdminHandler(), n.logger), admin)
		servers = append(servers, back)
		tasks.Go(func() { cancel(back.serve(&certificate{})) })
	}
	n.announce(public.Addr(), admin)
	<-ctx.Done()
	cause := context.Cause(ctx)
	n.drain(servers, cause)
	stopHub()
	tasks.Wait()
	n.logger.Info("ended")
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	return fmt.Errorf("serving: %w", cause)
}

// listen gives the public listener: that which the process was given, or a new one.
func (n *node) listen(ctx context.Context) (net.Listener, error) {
	t := n.tuning()
	if ln, err := inherited(t); ln != nil || err != nil {
		return ln, err
	}
	return listen(ctx, n.cmd.Listen, t)
}

func (n *node) tuning() tuning {
	return tuning{silence: n.cmd.WriteTimeout, heartbeat: n.cmd.Heartbeat, share: n.cmd.ReusePort}
}

func (n *node) listenAdmin(ctx context.Context) (net.Listener, error) {
	if n.cmd.Admin == "" {
		return nil, nil
	}
	ln, err := listen(ctx, n.cmd.Admin, n.tuning())
	if errors.Is(err, syscall.EADDRINUSE) && n.cmd.Admin == defaultAdmin {
		n.logger.Warn("another program has the operator's address, so this node has none; choose one with --admin", "admin", n.cmd.Admin)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listening for the operator: %w", err)
	}
	return ln, nil
}

func (n *node) announce(public net.Addr, admin net.Listener) {
	scheme := "http"
	if n.cmd.TLSCert != "" {
		scheme = "https"
	}
	attrs := []any{"url", scheme + "://" + public.String(), "log", "memory", "access", "open"}
	if n.verifier != nil {
		attrs[5] = "tokens"
	}
	if n.cmd.Redis != "" {
		attrs[3] = "redis"
	}
	if admin != nil {
		attrs = append(attrs, "admin", "http://"+admin.Addr().String())
	}
	n.logger.Info("serving", attrs...)
	if tcp, ok := public.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && n.verifier == nil {
		n.logger.Warn("the gateway is OPEN: whoever can reach this address may read and publish in every room; give it --jwt-secret, --jwt-key or --jwks")
	}
}

// listensOn is how long a node that is to end listens at least, however few
// streams it has.
func (n *node) listensOn(why error) time.Duration {
	var least time.Duration
	if errors.Is(why, signalled{syscall.SIGTERM}) {
		// Whatever sends clients here finds out the next time it asks; someone at a
		// terminal, who sends another signal, waits for nothing.
		least = n.cmd.Drain / 4
	}
	if n.cmd.ReusePort {
		// What was on its way here when the next process began to listen comes within a
		// round trip, and would be reset with the listener.
		least = max(least, time.Second)
	}
	return least
}

// drain sends everybody away within the time there is for it.
func (n *node) drain(servers []*server, why error) {
	n.logger.Info("draining", "within", n.cmd.Drain)
	ctx, cancel := context.WithTimeout(context.Background(), n.cmd.Drain)
	defer cancel()
	n.gateway.Drain()
	latecomers := time.After(n.listensOn(why))
	for _, srv := range servers {
		srv.SetKeepAlivesEnabled(false) // a connection closes behind an answer, rather than before a request
	}
	n.hub.Drain(ctx, n.cmd.Drain*8/10)
	select {
	case <-ctx.Done():
	case <-latecomers:
	}
	for _, srv := range servers {
		if err := srv.end(ctx); err != nil {
			n.logger.Warn("some connections did not end in time", "error", err)
			_ = srv.Close() // they are cut, then
		}
	}
}
