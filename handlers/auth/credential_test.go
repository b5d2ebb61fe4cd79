package auth

import (
	"net/http/httptest"
	"testing"
)

func TestCredential(t *testing.T) {
	type header [][2]string
	for name, tt := range map[string]struct {
		header header
		token  string
		ok     bool
	}{
		"none":                 {nil, "", false},
		"bearer":               {header{{"Authorization", "Bearer abc.def.ghi"}}, "abc.def.ghi", true},
		"any case of scheme":   {header{{"Authorization", "bEARER abc"}}, "abc", true},
		"more spaces":          {header{{"Authorization", "Bearer   abc "}}, "abc", true},
		"no token":             {header{{"Authorization", "Bearer"}}, "", true},
		"two tokens in one":    {header{{"Authorization", "Bearer abc, Bearer def"}}, "abc, Bearer def", true},
		"two headers":          {header{{"Authorization", "Bearer abc"}, {"Authorization", "Bearer abc"}}, "", true},
		"basic":                {header{{"Authorization", "Basic YTpi"}}, "", false},
		"basic and cookie":     {header{{"Authorization", "Basic YTpi"}, {"Cookie", "__Host-sluice=c"}}, "c", true},
		"cookie":               {header{{"Cookie", "a=b; __Host-sluice=abc.def.ghi"}}, "abc.def.ghi", true},
		"cookie of a sibling":  {header{{"Cookie", "sluice=abc; __host-sluice=abc; __Secure-sluice=x"}}, "", false},
		"two cookies":          {header{{"Cookie", "__Host-sluice=a; __Host-sluice=b"}}, "", true},
		"empty cookie":         {header{{"Cookie", "__Host-sluice="}}, "", true},
		"header before cookie": {header{{"Authorization", "Bearer h"}, {"Cookie", "__Host-sluice=c"}}, "h", true},
		"bad header, cookie":   {header{{"Authorization", "Bearer "}, {"Cookie", "__Host-sluice=c"}}, "", true},
	} {
		r := httptest.NewRequest("GET", "/rooms/lobby/events?access_token=q&token=q&ticket=q&jwt=q", nil)
		for _, h := range tt.header {
			r.Header.Add(h[0], h[1])
		}
		if token, ok := Credential(r); token != tt.token || ok != tt.ok {
			t.Errorf("%s: got %q, %v; want %q, %v", name, token, ok, tt.token, tt.ok)
		}
	}
}
