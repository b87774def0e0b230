"""The episodes of one client: where each begins and ends, and what its samples hold."""

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.policies.policy import Policy, PolicyOutput
from jax_bridge.serving.client_words import ClientWords, EpisodeEnd, EpisodeName
from jax_bridge.serving.served_episodes import OpenEpisode, ServedEpisodes


class EpisodeCount:
    """Counts the episodes and calls of one client.

    An episode begins where the client says so (`reset`, another `episode`), after it ended one,
    after it was idle (unless it is in an episode that it named), and where the instruction
    changes: a client that says nothing changes its task only between episodes.
    """

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._episodes = 0
        self._call = 0
        self._given: EpisodeName | None = None
        self._instruction: str | None = None
        self._over = True

    @property
    def call(self) -> int:
        """Number of the call at hand inside its episode."""
        return self._call

    @property
    def name(self) -> EpisodeName:
        """The episode at hand."""
        if self._given is not None:
            return self._given
        return EpisodeName(task_id=self._connection, episode=self._episodes - 1)

    @property
    def is_named(self) -> bool:
        """Whether the client itself named the episode at hand."""
        return self._given is not None

    @property
    def is_in_named(self) -> bool:
        """Whether an episode that the client named goes on."""
        return self.is_named and not self._over

    def advance(self, words: ClientWords, instruction: str) -> bool:
        """Counts a call; returns whether an episode begins with it."""
        renamed = words.episode is not None and words.episode != self._given
        begins = self._over or words.reset or renamed or instruction != self._instruction
        self._call = 0 if begins else self._call + 1
        if begins:
            self._given, self._instruction, self._over = words.episode, instruction, False
            self._episodes += words.episode is None
        return begins

    def end(self) -> None:
        """The next call begins an episode."""
        self._over = True


class ClientEpisodes:
    """Writes what one client asks and gets; all calls must come from the writing thread."""

    def __init__(self, store: ServedEpisodes, policy: Policy, *, keep_images: bool) -> None:
        self._store = store
        self._policy = policy
        self._keep_images = keep_images
        self._open: OpenEpisode | None = None
        self._named = False

    def begin(self, count: EpisodeCount, instruction: str) -> None:
        """Ends the open episode, if there is one, and begins the one at hand.

        Raises:
            ValueError: if it is there already.
            OSError: if the disk refuses.
        """
        self.end(EpisodeEnd())
        self._open = self._store.begin(count.name, instruction)
        self._named = count.is_named

    def append(
        self,
        count: EpisodeCount,
        words: ClientWords,
        observation: RobotObservation,
        output: PolicyOutput,
    ) -> None:
        """Appends one call.

        Raises:
            ValueError: if its timestep does not rise.
            OSError: if the disk refuses.
        """
        assert self._open is not None
        images = self._policy.seen_images(observation) if self._keep_images else None
        self._open.recorder.append(
            timestep=count.call if words.timestep is None else words.timestep,
            call=count.call,
            latents=output.latents,
            state=observation.state,
            actions=output.actions,
            images=images,
        )
        self._open.samples += 1

    def end(self, end: EpisodeEnd) -> None:
        """Ends the open episode, if there is one."""
        episode, self._open = self._open, None
        if episode is None:
            return
        if not episode.samples:  # its first sample was refused
            self._store.drop(episode)
            return
        self._store.finish(
            episode,
            success=end.success,
            success_at_end=end.success_at_end,
            episode_length=end.episode_length,
        )

    def leave(self) -> None:
        """The client is gone: what it named it will send again, the rest ends as it stands.

        A client that names episodes ends them too, so one without an end was interrupted. Other
        clients never say that an episode is over.
        """
        if self._open is not None and self._named:
            self._store.drop(self._open)
            self._open = None
        self.end(EpisodeEnd())
        self._store.commit()


def default_noise_key(count: EpisodeCount) -> tuple[int | str, ...]:
    """Names the noise of a call by its episode, so that a named episode can be had again."""
    name = count.name
    return (name.suite, name.task_id, name.episode, "call", count.call)
