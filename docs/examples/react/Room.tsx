// A room as a React component: its newest messages, those that come, and a form
// to send one. See README.md for where ./sluice.js comes from.
import { useEffect, useRef, useState } from 'react';
import { publish, subscribe, type Event, type Gap, type State } from './sluice.js';

/** What a room shows: its messages, and where some are missing. */
type Line = { kind: 'message'; event: Event } | { kind: 'gap'; gap: Gap };

interface RoomLines {
  lines: Line[];
  state: State['state'];
}

const shown = 200;

/** Reads a room for as long as the component is there, and keeps its newest lines. */
export function useRoom(room: string, gateway: string, token?: () => Promise<string>): RoomLines {
  const [lines, setLines] = useState<Line[]>([]);
  const [state, setState] = useState<State['state']>('connecting');
  // A new function at each render is no reason to open a new stream.
  const latest = useRef(token);
  useEffect(() => {
    latest.current = token;
  });
  const signedIn = token !== undefined;

  useEffect(() => {
    setLines([]);
    const add = (line: Line) => setLines((before) => [...before, line].slice(-shown));
    const subscription = subscribe(room, {
      url: gateway,
      token: signedIn ? () => latest.current?.() ?? Promise.reject(new Error('signed out')) : undefined,
      after: 'earliest', // what is shown begins empty, so the room is told anew
      types: ['message'],
      onEvent: (event) => add({ kind: 'message', event }),
      onGap: (gap) => add({ kind: 'gap', gap }),
      onState: (now) => setState(now.state),
    });
    // StrictMode mounts twice: the first stream is closed before the second is read.
    return () => subscription.close();
  }, [room, gateway, signedIn]);

  return { lines, state };
}

/** What an event says. Others publish to the room too, so its data may be anything. */
function textOf(data: unknown): string {
  if (typeof data === 'string') return data;
  if (typeof data === 'object' && data !== null && 'text' in data) return String(data.text);
  return JSON.stringify(data);
}

interface RoomProps {
  room: string;
  /** Where the gateway is, as https://events.example.com. */
  gateway: string;
  /** Gives a token that is valid now; none for an open gateway. */
  token?: () => Promise<string>;
}

export function Room({ room, gateway, token }: RoomProps) {
  const { lines, state } = useRoom(room, gateway, token);
  const [text, setText] = useState('');
  const [problem, setProblem] = useState('');

  async function send() {
    setText('');
    setProblem('');
    try {
      // It is shown when it comes back on the stream, as everybody sees it.
      await publish(room, { text }, { url: gateway, token });
    } catch (error) {
      setText(text);
      setProblem(error instanceof Error ? error.message : String(error));
    }
  }

  return (
    <section aria-label={room}>
      <ol aria-live="polite">
        {lines.map((line) =>
          line.kind === 'message' ? (
            <li key={line.event.id}>
              {line.event.from && <b>{line.event.from}: </b>}
              {textOf(line.event.data)}
            </li>
          ) : (
            <li key={`gap ${line.gap.after} ${line.gap.resumes_at}`}>
              <i>{line.gap.missed ?? 'some'} messages are missing here</i>
            </li>
          ),
        )}
      </ol>
      {state !== 'live' && <p role="status">{state}</p>}
      {problem && <p role="alert">not sent: {problem}</p>}
      <form
        onSubmit={(submitted) => {
          submitted.preventDefault();
          void send();
        }}
      >
        <input value={text} onChange={(change) => setText(change.target.value)} aria-label="message" required />
        <button>send</button>
      </form>
    </section>
  );
}
