package anchor

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testConfig() Config {
	return Config{
		{
			Chain: "arweave", Endpoints: []string{"https://a.example", "https://b.example/x"}, Wallet: "/keys/ar.json", Network: "arweave.N.1",
			Confirmations: 5, MaxFee: 7, Interval: time.Hour, Entries: 9, Agree: 2, Poll: time.Minute,
		},
		{Chain: "k2", Endpoints: []string{"http://127.0.0.1:1"}, Wallet: "/keys/id.json", Network: "abc", MemoProgram: "Memo"},
	}
}

func TestConfig(t *testing.T) {
	c := testConfig()
	b, err := c.Format()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseConfig(b)
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%+v, %v", got, err)
	}
	if again := c.Without("arweave").With(c[0]); !reflect.DeepEqual(again, c) || len(c.Without("k2")) != 1 || c.Chain("k2") != &c[1] || c.Chain("doge") != nil {
		t.Errorf("changed: %+v", again)
	}
	if s := c[0].Schedule(); s.Interval != time.Hour || s.Entries != 9 || s.Poll != time.Minute {
		t.Errorf("schedule %+v", s)
	}
	for name, change := range map[string]func(*ChainConfig){
		"name":         func(c *ChainConfig) { c.Chain = "K2" },
		"no endpoint":  func(c *ChainConfig) { c.Endpoints = nil },
		"endpoints":    func(c *ChainConfig) { c.Endpoints = make([]string, 17) },
		"not a URL":    func(c *ChainConfig) { c.Endpoints[0] = "ftp://a" },
		"long URL":     func(c *ChainConfig) { c.Endpoints[0] = "http://" + strings.Repeat("a", maxURL) },
		"relative":     func(c *ChainConfig) { c.Wallet = "wallet.json" },
		"network":      func(c *ChainConfig) { c.Network = "" },
		"memo":         func(c *ChainConfig) { c.MemoProgram = "\xff" },
		"interval":     func(c *ChainConfig) { c.Interval = time.Millisecond },
		"poll":         func(c *ChainConfig) { c.Poll = -1 },
		"entries":      func(c *ChainConfig) { c.Entries = -1 },
		"too many":     func(c *ChainConfig) { c.Agree = 3 },
		"out of order": func(c *ChainConfig) { c.Chain = "z" },
	} {
		c := testConfig()
		change(&c[0])
		if _, err := c.Format(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"nothing":  "",
		"version":  `{"version":2,"chains":[]}`,
		"field":    `{"version":1,"chains":[],"more":1}`,
		"behind":   string(b) + "{}",
		"duration": strings.Replace(string(b), `"1h0m0s"`, `"soon"`, 1),
		"twice":    strings.Replace(string(b), `"arweave",`, `"k2",`, 1),
		"large":    string(b) + strings.Repeat(" ", MaxConfig),
	} {
		if _, err := ParseConfig([]byte(text)); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What can be read is written again to something that says the same.
func FuzzConfig(f *testing.F) {
	b, err := testConfig().Format()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"chains":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Errorf("error of another class: %v", err)
			}
			return
		}
		text, err := c.Format()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseConfig(text); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v becomes %+v, %v", c, again, err)
		}
	})
}
