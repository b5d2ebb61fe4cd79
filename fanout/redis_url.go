package fanout

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// parseRedisURL understands redis://, rediss:// and unix:// as go-redis does,
// redis+sentinel://user:password@host:port,host:port/master?db=0 and
// redis+cluster://user:password@host:port,host:port, both with rediss+ for TLS.
func parseRedisURL(raw string) (servers, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return nil, errors.New("the Redis URL has no scheme: write redis://host:6379")
	}
	switch scheme {
	case "redis", "rediss", "unix":
		opt, err := redis.ParseURL(raw)
		if err != nil {
			return nil, fmt.Errorf("the Redis URL cannot be read: %w", hideUserinfo(err))
		}
		return newSingle(func() *redis.Client { return redis.NewClient(settings(*opt)) }), nil
	case "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster":
	default:
		return nil, fmt.Errorf("unknown scheme %q of the Redis URL: use redis, rediss, redis+sentinel or redis+cluster", scheme)
	}
	several, err := parseSeveral(rest)
	if err != nil {
		return nil, err
	}
	base, err := redis.ParseURL(strings.TrimSuffix(strings.TrimSuffix(scheme, "+cluster"), "+sentinel") + "://" + several.userinfo + several.hosts[0] + several.query)
	if err != nil {
		return nil, fmt.Errorf("the Redis URL cannot be read: %w", hideUserinfo(err))
	}
	opt := settings(*base)
	if strings.HasSuffix(scheme, "cluster") {
		return newCluster(opt, several.hosts), nil
	}
	if several.path == "" {
		return nil, errors.New("the Redis URL lacks the master's name: redis+sentinel://host:26379,host:26379/NAME")
	}
	return newSingle(func() *redis.Client { return redis.NewFailoverClient(failover(opt, several)) }), nil
}

func failover(o *redis.Options, s several) *redis.FailoverOptions {
	return &redis.FailoverOptions{
		MasterName: s.path, SentinelAddrs: s.hosts,
		Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLSConfig,
		MaxRetries: o.MaxRetries, DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
		ContextTimeoutEnabled: true, PoolSize: o.PoolSize, DisableIdentity: true,
	}
}

// settings are what every connection needs here, whatever the URL says: a
// command that may have been executed is never sent again (a publication
// would appear twice), and nothing waits for longer than its caller.
func settings(o redis.Options) *redis.Options {
	o.MaxRetries = -1
	o.DialTimeout = dialTimeout
	o.DialerRetries = 1
	o.ReadTimeout, o.WriteTimeout = commandTimeout, commandTimeout
	o.ContextTimeoutEnabled = true
	o.PoolSize = 64
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return &o
}

// several is a URL that names several hosts, which net/url refuses.
type several struct {
	userinfo string // with its @
	hosts    []string
	path     string
	query    string // with its ?
}

func parseSeveral(rest string) (several, error) {
	var s several
	rest, query, ok := strings.Cut(rest, "?")
	if ok {
		s.query = "?" + query
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		s.userinfo, rest = rest[:i+1], rest[i+1:]
	}
	hosts, path, _ := strings.Cut(rest, "/")
	name, err := url.PathUnescape(path)
	if err != nil {
		return s, errors.New("the Redis URL's path cannot be read")
	}
	s.path = name
	for host := range strings.SplitSeq(hosts, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			return s, fmt.Errorf("the Redis URL names %q: write host:port", host)
		}
		s.hosts = append(s.hosts, host)
	}
	return s, nil
}

// hideUserinfo keeps a password out of what net/url says of a URL.
func hideUserinfo(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
