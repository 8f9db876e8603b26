package anchor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A ChainConfig says how one chain is anchored on. Wallets stay where they are: there is
// only the path of the file.
type ChainConfig struct {
	Chain     string   // "k2", "arweave"
	Endpoints []string // URLs, in the order of preference
	Wallet    string   // absolute path
	Network   string   // genesis hash on K2, name on Arweave
	// MemoProgram on K2; "" is the usual one.
	MemoProgram string
	// Confirmations that make an anchor final on Arweave; 0 is the default.
	Confirmations uint64
	MaxFee        uint64 // smallest units; 0 is the default
	Interval      time.Duration
	Entries       int64
	// Agree is how many endpoints must say that an anchor is final, has failed or can no
	// longer land, by the rule of Agreed; 0 is half of them, rounded up.
	Agree int
	Poll  time.Duration
}

// A Config is the chains of a store, by name.
type Config []ChainConfig

// ErrConfig is a configuration that makes no sense, or cannot be read.
var ErrConfig = errors.New("anchor configuration")

// Bounds of a configuration.
const (
	// MaxConfig is the most bytes of one in its file.
	MaxConfig    = 64 << 10
	maxEndpoints = 16
	maxURL       = 1024
	maxPath      = 4096
	minInterval  = time.Second
	maxInterval  = 366 * 24 * time.Hour
)

// Check refuses what cannot be meant. Whether wallet and endpoints are good is not asked.
func (c *ChainConfig) Check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w of %q: %s", ErrConfig, c.Chain, fmt.Sprintf(format, a...))
	}
	if n := len(c.Chain); n == 0 || n > maxChain || strings.ContainsFunc(c.Chain, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return bad("no name of a chain")
	}
	if n := len(c.Endpoints); n == 0 || n > maxEndpoints {
		return bad("%d endpoints, must be 1 to %d", n, maxEndpoints)
	}
	for _, u := range c.Endpoints {
		if len(u) > maxURL || !utf8.ValidString(u) || !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
			return bad("endpoint %.100q is not an http or https URL", u)
		}
	}
	switch {
	case len(c.Wallet) > maxPath || !filepath.IsAbs(c.Wallet) || !utf8.ValidString(c.Wallet):
		return bad("wallet %.100q is not an absolute path", c.Wallet)
	case c.Network == "" || len(c.Network) > maxField || !utf8.ValidString(c.Network):
		return bad("network %.100q", c.Network)
	case len(c.MemoProgram) > maxField || !utf8.ValidString(c.MemoProgram):
		return bad("memo program %.100q", c.MemoProgram)
	case c.Interval != 0 && (c.Interval < minInterval || c.Interval > maxInterval):
		return bad("interval %v, must be 0 or %v to %v", c.Interval, minInterval, maxInterval)
	case c.Poll != 0 && (c.Poll < 10*time.Millisecond || c.Poll > time.Hour):
		return bad("poll %v, must be 0 or 10ms to 1h", c.Poll)
	case c.Entries < 0:
		return bad("%d entries", c.Entries)
	case c.Agree < 0 || c.Agree > len(c.Endpoints):
		return bad("%d of %d endpoints cannot agree", c.Agree, len(c.Endpoints))
	}
	return nil
}

// Schedule returns when the chain gets anchors.
func (c *ChainConfig) Schedule() Schedule {
	return Schedule{Interval: c.Interval, Entries: c.Entries, Poll: c.Poll}
}

// Chain returns the configuration of a chain, nil if it has none.
func (c Config) Chain(name string) *ChainConfig {
	if i := slices.IndexFunc(c, func(one ChainConfig) bool { return one.Chain == name }); i >= 0 {
		return &c[i]
	}
	return nil
}

// With returns c with the configuration of a chain put in its place.
func (c Config) With(one ChainConfig) Config {
	out := append(c.Without(one.Chain), one)
	slices.SortFunc(out, func(a, b ChainConfig) int { return strings.Compare(a.Chain, b.Chain) })
	return out
}

// Without returns c without a chain.
func (c Config) Without(name string) Config {
	return slices.DeleteFunc(slices.Clone(c), func(one ChainConfig) bool { return one.Chain == name })
}

// configJSON is the file's form, version 1.
type configJSON struct {
	Version int         `json:"version"`
	Chains  []chainJSON `json:"chains"`
}

type chainJSON struct {
	Chain         string   `json:"chain"`
	Endpoints     []string `json:"endpoints"`
	Wallet        string   `json:"wallet"`
	Network       string   `json:"network"`
	MemoProgram   string   `json:"memo_program,omitempty"`
	Confirmations uint64   `json:"confirmations,omitempty"`
	MaxFee        uint64   `json:"max_fee,omitempty"`
	Interval      string   `json:"interval,omitempty"`
	Entries       int64    `json:"entries,omitempty"`
	Agree         int      `json:"agree,omitempty"`
	Poll          string   `json:"poll,omitempty"`
}

// Format returns the configuration as its file has it.
func (c Config) Format() ([]byte, error) {
	j := configJSON{Version: 1, Chains: []chainJSON{}}
	for i, one := range c {
		if err := one.Check(); err != nil {
			return nil, err
		}
		if i > 0 && c[i-1].Chain >= one.Chain {
			return nil, fmt.Errorf("%w: chain %s is out of order", ErrConfig, one.Chain)
		}
		j.Chains = append(j.Chains, chainJSON{
			one.Chain, one.Endpoints, one.Wallet, one.Network, one.MemoProgram, one.Confirmations, one.MaxFee,
			durationText(one.Interval), one.Entries, one.Agree, durationText(one.Poll),
		})
	}
	b, err := json.MarshalIndent(j, "", "  ")
	if err == nil && len(b) >= MaxConfig {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrConfig, len(b), MaxConfig)
	}
	return append(b, '\n'), err
}

func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// ParseConfig reads what Format returned, or what a person made of it.
func ParseConfig(b []byte) (Config, error) {
	if len(b) > MaxConfig {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrConfig, len(b), MaxConfig)
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if version.Version != 1 {
		return nil, fmt.Errorf("%w: version %d, this program knows 1", ErrConfig, version.Version)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var j configJSON
	if err := d.Decode(&j); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows it", ErrConfig)
	}
	var c Config
	for _, one := range j.Chains {
		p := ChainConfig{
			Chain: one.Chain, Endpoints: one.Endpoints, Wallet: one.Wallet, Network: one.Network, MemoProgram: one.MemoProgram,
			Confirmations: one.Confirmations, MaxFee: one.MaxFee, Entries: one.Entries, Agree: one.Agree,
		}
		var err error
		for _, f := range []struct {
			text string
			to   *time.Duration
		}{{one.Interval, &p.Interval}, {one.Poll, &p.Poll}} {
			if f.text == "" {
				continue
			}
			if *f.to, err = time.ParseDuration(f.text); err != nil {
				return nil, fmt.Errorf("%w of %q: %w", ErrConfig, one.Chain, err)
			}
		}
		if err := p.Check(); err != nil {
			return nil, err
		}
		if c.Chain(p.Chain) != nil {
			return nil, fmt.Errorf("%w: chain %s twice", ErrConfig, p.Chain)
		}
		c = c.With(p)
	}
	return c, nil
}
