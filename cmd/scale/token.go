package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/grpcapi"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the tokens by which others may use the node",
		Long: `A token lets whoever has it use the node that serves this store, within its scope: read;
write, which includes it; admin, which includes both. The store keeps a hash of it. While the
store is served the change counts at once; revoking ends calls that are under way.

Clients pass it in $SCALE_TOKEN or with --token-file, others as "authorization: Bearer TOKEN".`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
	return cmd
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var scopeName, expiry string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token and print it, once",
		Long: `Makes a token and prints it. It is shown this once: the store cannot tell it again.
NAME is 1 to 64 of A-Z a-z 0-9 . _ - and says whose it is.`,
		Example: `  scale token create ci --scope write > token
  scale token create auditor --scope read --expires 30d
  scale token create guest --scope read --expires 2027-01-31T12:00:00Z`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&scopeName, "scope", "", "what it allows: read, write or admin")
	cmd.Flags().StringVar(&expiry, "expires", "", "after how long (\"90m\", \"30d\") or at what `TIME` (RFC 3339) it ends; default never")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if scopeName == "" {
			return usagef("a token needs --scope read, write or admin")
		}
		scope, err := grpcapi.ParseScope(scopeName)
		if err != nil {
			return usagef("--scope: %w", err)
		}
		expires, err := parseExpiry(expiry, time.Now())
		if err != nil {
			return usagef("--expires: %w", err)
		}
		k, err := a.tokens(cmd)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, k.Close()) }()
		t, secret, err := k.CreateToken(cmd.Context(), args[0], scope, expires)
		if err != nil {
			return err
		}
		if err := a.printToken(t, secret); err != nil {
			// Nobody has it, and nobody can be told it again.
			return errors.Join(fmt.Errorf("token %s cannot be printed and is revoked: %w", t.Name, err),
				k.RevokeToken(context.WithoutCancel(cmd.Context()), t.Name))
		}
		return nil
	}
	return cmd
}

func (a *app) printToken(t grpcapi.Token, secret string) error {
	var err error
	if a.json {
		v := viewToken(t)
		v["token"] = secret
		err = a.print(v)
	} else {
		err = a.printf("%s\n", secret)
	}
	return errors.Join(err, a.stdout.Flush())
}

func (a *app) tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens: name, scope, when made, when they expire",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		k, err := a.tokens(cmd)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, k.Close()) }()
		list, err := k.ListTokens(cmd.Context())
		if err != nil {
			return err
		}
		tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		for _, t := range list {
			if a.json {
				err = a.print(viewToken(t))
			} else {
				expires := "never expires"
				if !t.Expires.IsZero() {
					expires = "expires " + timeText(t.Expires)
					if !time.Now().Before(t.Expires) {
						expires = "expired " + timeText(t.Expires)
					}
				}
				_, err = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", t.Name, grpcapi.FormatScope(t.Scope), timeText(t.Created), expires)
			}
			if err != nil {
				return err
			}
		}
		return tw.Flush()
	}
	return cmd
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Make a token void at once",
		Args:  cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		k, err := a.tokens(cmd)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, k.Close()) }()
		if err := k.RevokeToken(cmd.Context(), args[0]); err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]any{"name": args[0], "revoked": true})
		}
		return nil
	}
	return cmd
}

func viewToken(t grpcapi.Token) map[string]any {
	v := map[string]any{"name": t.Name, "scope": grpcapi.FormatScope(t.Scope), "created": timeText(t.Created)}
	if !t.Expires.IsZero() {
		v["expires"] = timeText(t.Expires)
	}
	return v
}

// parseExpiry returns the time that --expires names; none is the zero time.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int64
		if n, err = strconv.ParseInt(days, 10, 64); err == nil && (n < 1 || n > 100*365) {
			err = strconv.ErrRange
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		return time.Time{}, fmt.Errorf("%q is neither a time to come such as 30d or 12h nor an RFC 3339 time", s)
	}
	return now.Add(d), nil
}

// A tokenKeeper changes the tokens of a store: those in its directory, or those of the
// node that has them in memory.
type tokenKeeper interface {
	CreateToken(ctx context.Context, name string, scope scalev1.Scope, expires time.Time) (grpcapi.Token, string, error)
	ListTokens(ctx context.Context) ([]grpcapi.Token, error)
	RevokeToken(ctx context.Context, name string) error
	Close() error
}

// storeTokens are the tokens of a store that nobody serves.
type storeTokens struct {
	lock *store.Lock
	file *grpcapi.TokenFile
}

func (s storeTokens) CreateToken(_ context.Context, name string, scope scalev1.Scope, expires time.Time) (grpcapi.Token, string, error) {
	return s.file.Create(name, scope, expires)
}

func (s storeTokens) ListTokens(context.Context) ([]grpcapi.Token, error) { return s.file.List() }

func (s storeTokens) RevokeToken(_ context.Context, name string) error { return s.file.Revoke(name) }

func (s storeTokens) Close() error {
	s.file.Close()
	return s.lock.Release()
}

// tokens returns who can change the tokens: the node of --node, this process while it
// holds the store, or else the one that serves it. The caller closes it.
func (a *app) tokens(cmd *cobra.Command) (tokenKeeper, error) {
	if a.remote() {
		return a.dial(cmd, compress.Default)
	}
	ctx := cmd.Context()
	dir, err := a.existing(ctx)
	if err != nil {
		return nil, err
	}
	p := &place{a: a, ctx: ctx, dir: dir, command: cmd.CommandPath()}
	for deadline := time.Now().Add(a.waitLock); ; {
		lock, locked := store.AcquireLock(ctx, dir, 0, p.command)
		if locked == nil {
			return storeTokens{lock, grpcapi.OpenTokens(dir)}, nil
		}
		if !errors.Is(locked, store.ErrBusy) {
			return nil, locked
		}
		c, err := p.join(locked, grpcapi.DialOptions{Revive: gone})
		if err == nil {
			return c, nil
		}
		if err := p.later(err, locked, deadline); err != nil {
			return nil, err
		}
	}
}

// ownerPoll is how often a store is asked for again that a process owns and does not serve.
const ownerPoll = 20 * time.Millisecond
