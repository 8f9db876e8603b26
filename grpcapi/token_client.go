package grpcapi

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// CreateToken makes a token at the node, as TokenFile.Create does.
func (c *Client) CreateToken(ctx context.Context, name string, scope scalev1.Scope, expires time.Time) (Token, string, error) {
	req := &scalev1.CreateTokenRequest{Name: name, Scope: scope}
	if !expires.IsZero() {
		req.Expires = timestamppb.New(expires)
	}
	r, err := c.node.CreateToken(ctx, req)
	if err != nil {
		return Token{}, "", callError(ctx, err)
	}
	t, err := tokenFromProto(r.GetToken())
	if err != nil {
		return Token{}, "", err
	}
	if _, err := parseToken(r.GetSecret()); err != nil || t.Name != name || t.Scope != scope {
		return Token{}, "", nodeErrorf("the token that was made is not the one that was asked for; revoke it")
	}
	return t, r.GetSecret(), nil
}

// ListTokens returns the node's tokens by name, without their secrets.
func (c *Client) ListTokens(ctx context.Context) ([]Token, error) {
	r, err := ask(ctx, c, c.node.ListTokens, &scalev1.ListTokensRequest{})
	if err != nil {
		return nil, err
	}
	list := make([]Token, 0, len(r.GetTokens()))
	for _, p := range r.GetTokens() {
		t, err := tokenFromProto(p)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// RevokeToken makes a token of the node void, as TokenFile.Revoke does.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	_, err := c.node.RevokeToken(ctx, &scalev1.RevokeTokenRequest{Name: name})
	return callError(ctx, err)
}

func tokenFromProto(p *scalev1.Token) (Token, error) {
	t := Token{Name: p.GetName(), Scope: p.GetScope(), Created: p.GetCreated().AsTime()}
	if p.GetExpires() != nil {
		t.Expires = p.GetExpires().AsTime()
	}
	if err := CheckTokenName(t.Name); err != nil || scopeNames[t.Scope] == "" || !p.GetCreated().IsValid() {
		return Token{}, nodeErrorf("a token without a sound name, scope or time")
	}
	return t, nil
}
