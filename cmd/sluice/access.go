package main

import (
	"fmt"
	"log/slog"
	"os"

	"sluice/handlers"
	"sluice/handlers/auth"
	"sluice/handlers/limit"
)

// accessFlags say who may use a gateway, and how much of it.
type accessFlags struct {
	JWTSecret   string   `name:"jwt-secret" help:"Secret that tokens are signed with (HS256). Better given by its variable, which does not show in lists of processes." placeholder:"S" reload:""`
	JWTKey      []string `name:"jwt-key" help:"Public key that tokens are checked with (RS256, ES256, EdDSA), PEM. May be repeated; read again at SIGHUP." type:"existingfile" sep:"none" placeholder:"FILE" reload:""`
	JWKS        string   `name:"jwks" help:"Where the keys for tokens are fetched: https, or http on this machine." placeholder:"URL"`
	JWTIssuer   string   `name:"jwt-issuer" help:"Who must have made a token (iss). Anybody with the key, if left out." placeholder:"NAME"`
	JWTAudience string   `name:"jwt-audience" help:"Whom a token must be made for (aud). Tokens for an audience are refused, if left out." placeholder:"NAME"`

	PublicSubscribe []string `help:"Rooms that everybody may read although there are tokens; * stands for any run of characters. May be repeated." sep:"none" placeholder:"P" reload:""`
	PublicPublish   []string `help:"Rooms that everybody may publish to. May be repeated." sep:"none" placeholder:"P" reload:""`
	StrictTickets   bool     `help:"A ticket opens one stream and never reopens it." reload:""`
	TrustedProxy    []string `help:"Proxies whose X-Forwarded-For counts, as addresses or CIDRs. May be repeated." sep:"none" placeholder:"CIDR" reload:""`

	MaxStreams           int     `help:"Most streams of this node. 0: as many as its file descriptors allow." default:"0" placeholder:"N" reload:""`
	MaxStreamsPerIP      int     `name:"max-streams-per-ip" help:"Most streams of one address (IPv6: /64) on this node. 0 is no limit." default:"1000" placeholder:"N" reload:""`
	MaxStreamsPerSubject int     `help:"Most streams with the same subject on this node. 0 is no limit." default:"20" placeholder:"N" reload:""`
	PublishRate          float64 `help:"Events a second from one subject, or from an address without tokens. 0 is no limit." default:"100" placeholder:"N" reload:""`
	PublishBurst         int     `help:"Events of them at once." default:"200" placeholder:"N" reload:""`
	RoomPublishRate      float64 `help:"Events a second in one room, from everybody. 0 is no limit." default:"0" placeholder:"N" reload:""`
	RoomPublishBurst     int     `help:"Events of them at once." default:"2000" placeholder:"N" reload:""`
	NewRoomsRate         float64 `help:"Rooms that are new to this node a second, from one subject or address. 0 is no limit." default:"100" placeholder:"N" reload:""`
}

func (a *accessFlags) check() error {
	for _, n := range []struct {
		name string
		ok   bool
	}{
		{"--max-streams", a.MaxStreams >= 0}, {"--max-streams-per-ip", a.MaxStreamsPerIP >= 0}, {"--max-streams-per-subject", a.MaxStreamsPerSubject >= 0},
		{"--publish-rate", a.PublishRate >= 0}, {"--publish-burst", a.PublishBurst >= 0},
		{"--room-publish-rate", a.RoomPublishRate >= 0}, {"--room-publish-burst", a.RoomPublishBurst >= 0}, {"--new-rooms-rate", a.NewRoomsRate >= 0},
	} {
		if !n.ok {
			return usagef("%s is too small", n.name)
		}
	}
	if !a.tokens() {
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"--jwt-issuer", a.JWTIssuer != ""}, {"--jwt-audience", a.JWTAudience != ""},
			{"--public-subscribe", len(a.PublicSubscribe) > 0}, {"--public-publish", len(a.PublicPublish) > 0}, {"--strict-tickets", a.StrictTickets},
		} {
			if f.set {
				return usagef("%s says something of tokens, but without --jwt-secret, --jwt-key or --jwks everybody may do everything", f.name)
			}
		}
	}
	return nil
}

// tokens says whether there are any.
func (a *accessFlags) tokens() bool { return a.JWTSecret != "" || len(a.JWTKey) > 0 || a.JWKS != "" }

// keys reads the keys that tokens are checked with.
func (a *accessFlags) keys() (auth.Keys, error) {
	var keys auth.Keys
	if a.JWTSecret != "" {
		keys.Secrets = [][]byte{[]byte(a.JWTSecret)}
	}
	for _, name := range a.JWTKey {
		text, err := os.ReadFile(name)
		if err != nil {
			return keys, fmt.Errorf("--jwt-key: %w", err)
		}
		keys.PEM = append(keys.PEM, text)
	}
	return keys, nil
}

// configure puts into cfg what the flags and the namespaces of the file say of
// who may do how much.
func (a *accessFlags) configure(cfg *handlers.Config, file *configFile) error {
	var err error
	cfg.Namespaces = file.gatewayNamespaces()
	if cfg.TrustedProxies, err = limit.ParseTrusted(a.TrustedProxy); err != nil {
		return usagef("--trusted-proxy: %v", err)
	}
	if cfg.PublicSubscribe, err = auth.ParsePatterns(a.PublicSubscribe); err != nil {
		return usagef("--public-subscribe: %v", err)
	}
	if cfg.PublicPublish, err = auth.ParsePatterns(a.PublicPublish); err != nil {
		return usagef("--public-publish: %v", err)
	}
	cfg.StrictTickets = a.StrictTickets
	cfg.Limits = a.limits()
	return nil
}

// verifier judges tokens; nil where there are none. The caller owes it a Close.
func (a *accessFlags) verifier(logger *slog.Logger) (*auth.Verifier, error) {
	if !a.tokens() {
		return nil, nil
	}
	keys, err := a.keys()
	if err != nil {
		return nil, err
	}
	v, err := auth.New(auth.Config{Keys: keys, JWKSURL: a.JWKS, Issuer: a.JWTIssuer, Audience: a.JWTAudience, Log: logger})
	if err != nil {
		return nil, &usageError{err.Error()}
	}
	return v, nil
}

// limits are those of the flags; what --max-streams leaves open follows from
// the descriptors that the process may have.
func (a *accessFlags) limits() handlers.Limits {
	streams, most := a.MaxStreams, descriptors()
	if streams == 0 && most > 0 {
		// A reserve for what is no client, and as much again for clients that are no streams.
		streams = most - 2*limit.Reserve(most)
	}
	return handlers.Limits{
		Streams: streams, StreamsPerAddress: a.MaxStreamsPerIP, StreamsPerSubject: a.MaxStreamsPerSubject,
		PublishRate: a.PublishRate, PublishBurst: a.PublishBurst,
		RoomRate: a.RoomPublishRate, RoomBurst: a.RoomPublishBurst, NewRoomsRate: a.NewRoomsRate,
	}
}
