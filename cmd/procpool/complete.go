package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// completionPatience is how long a person waits for TAB.
const completionPatience = 2 * time.Second

// candidates are words that may stand at a place, each perhaps with a tab and what it is. The daemon is asked for them.
type candidates func(ctx context.Context, c *client.Client, cmd *cobra.Command) ([]string, error)

// addCompletions lets shells complete the names of pools, functions and calls.
func addCompletions(root *cobra.Command, g *globals) {
	ask := func(find candidates) cobra.CompletionFunc {
		return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
			defer cancel()
			c, err := g.dial(ctx)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp // nobody wants to read about it at this moment
			}
			defer c.Close()
			words, err := find(ctx, c, cmd)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		}
	}
	first := func(complete cobra.CompletionFunc) cobra.CompletionFunc {
		return func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return complete(cmd, args, word)
		}
	}
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "resize", "close", "join", "terminate", "workers", "calls", "logs":
			cmd.ValidArgsFunction = first(ask(poolNames))
		case "restart": // a program may follow
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
				if len(args) > 0 {
					return nil, cobra.ShellCompDirectiveDefault
				}
				return ask(poolNames)(cmd, args, word)
			}
		case "cancel":
			cmd.ValidArgsFunction = first(ask(callIDs))
		case "apply":
			cmd.ValidArgsFunction = first(ask(functionNames))
		}
		for name, complete := range map[string]cobra.CompletionFunc{
			"pool": ask(poolNames),
			"func": ask(functionNames),
			"halt": cobra.FixedCompletions([]cobra.Completion{
				"now,fail=1\tend all when one has failed", "soon,fail=1\tbegin no more when one has failed", "now,success=1\tend all when one has succeeded", "never",
			}, cobra.ShellCompDirectiveNoFileComp),
			"peer":   cobra.FixedCompletions([]cobra.Completion{"exact", "group", "cgroup"}, cobra.ShellCompDirectiveNoFileComp),
			"output": cobra.FixedCompletions([]cobra.Completion{"table", "wide", "json"}, cobra.ShellCompDirectiveNoFileComp),
		} {
			if cmd.Flags().Lookup(name) == nil {
				continue
			}
			if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
				panic(err) // the flag is there, and this is the only place
			}
		}
	}
}

func poolNames(ctx context.Context, c *client.Client, _ *cobra.Command) (names []string, err error) {
	pools, err := c.Pools(ctx)
	for _, p := range pools {
		names = append(names, p.GetName()+"\t"+strings.Join(functionsOf(p), " "))
	}
	return names, err
}

// functionNames are those of the pool that --pool names; without it, of all.
func functionNames(ctx context.Context, c *client.Client, cmd *cobra.Command) (names []string, err error) {
	only, err := cmd.Flags().GetString("pool")
	if err != nil {
		return nil, err
	}
	pools, err := c.Pools(ctx)
	for _, p := range pools {
		if only != "" && p.GetName() != only {
			continue
		}
		for _, f := range functionsOf(p) {
			names = append(names, f+"\tof "+p.GetName())
		}
	}
	return names, err
}

func functionsOf(p *pb.Pool) (names []string) {
	for _, f := range p.GetFunctions() {
		names = append(names, f.GetName())
	}
	return names
}

func callIDs(ctx context.Context, c *client.Client, _ *cobra.Command) (ids []string, err error) {
	calls, err := c.Calls(ctx, "")
	for _, call := range calls {
		ids = append(ids, call.GetId()+"\t"+call.GetPool()+" "+call.GetFunction()+" "+call.GetLabel())
	}
	return ids, err
}
