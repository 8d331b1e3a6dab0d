"""Tags and embeddings in their tables: written once with the end of their job, read wherever they are shown.

Knows nothing of leases: `jobs.finish` calls it inside its transaction, for the jobs whose lease held.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.views import TagView

# One JSON document for a whole batch: a statement with arrays, or one for each row, costs several times the CPU.
_INSERT_TAGS = text(
    """
    INSERT INTO tags (job_id, position, attribute, value, confidence, decision, evidence_text, evidence_photos,
                      alternatives)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS tag (
        job_id text, position smallint, attribute text, value text, confidence float8, decision text,
        evidence_text float8, evidence_photos float8, alternatives jsonb
    )
    """
)
# A JSON list is how pgvector reads a vector.
_INSERT_EMBEDDINGS = text(
    """
    INSERT INTO embeddings (job_id, product_id, model_version, embedding)
    SELECT job_id, product_id, model_version, CAST(embedding AS vector)
    FROM json_to_recordset(CAST(:rows AS json)) AS done (
        job_id text, product_id text, model_version text, embedding text
    )
    """
)


def write_tags(session: Session, tags_by_job: Mapping[str, Sequence[TagView]]) -> None:
    """Writes the tags of jobs that have none yet. Numbers must be Python's own and finite (ValueError)."""
    rows = [
        {
            "job_id": job_id,
            "position": position,
            "attribute": tag.attribute,
            "value": tag.value,
            "confidence": tag.confidence,
            "decision": tag.decision,
            "evidence_text": tag.evidence.get("text"),
            "evidence_photos": tag.evidence.get("photos"),
            "alternatives": [dict(alternative) for alternative in tag.alternatives],
        }
        for job_id, tags in tags_by_job.items()
        for position, tag in enumerate(tags)
    ]
    if rows:
        session.execute(_INSERT_TAGS, {"rows": json.dumps(rows, allow_nan=False)})


def write_embeddings(session: Session, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows of `job_id`, `product_id`, `model_version` and `embedding`, a list of finite numbers."""
    if rows:
        session.execute(_INSERT_EMBEDDINGS, {"rows": json.dumps(list(rows), allow_nan=False)})


_READ = text(
    """
    SELECT job_id, attribute, value, confidence, decision, evidence_text, evidence_photos, alternatives
    FROM tags WHERE job_id = ANY(CAST(:job_ids AS text[])) ORDER BY job_id, position
    """
)


def tags_of(session: Session, job_ids: Sequence[str]) -> dict[str, tuple[TagView, ...]]:
    """The tags of the jobs, in the order the model gave them; an empty tuple for a job without."""
    tags: dict[str, list[TagView]] = defaultdict(list)
    if job_ids:
        for row in session.execute(_READ, {"job_ids": list(job_ids)}):
            tags[row.job_id].append(
                TagView(
                    attribute=row.attribute,
                    value=row.value,
                    confidence=row.confidence,
                    decision=row.decision,
                    evidence={"text": row.evidence_text, "photos": row.evidence_photos},
                    alternatives=tuple(row.alternatives),
                )
            )
    return {job_id: tuple(tags[job_id]) for job_id in job_ids}
